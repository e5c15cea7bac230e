"""What decides a shard: the raw objects that fall to it and the ceilings, not what a release is called."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mm_assets.drops.limits import SnapshotConfig
from mm_assets.materialize import Workspace
from mm_assets.settings import Settings
from mm_assets.store.manifest import Manifest, Partition
from mm_assets.store.objects import Store
from mm_assets.store.refs import ref_key
from mm_assets_tests.drops.raw_data import (
    deliver,
    freeze,
    jsonl,
    make_folder,
    open_test_release,
    png,
    snapshot_action,
    tar_bytes,
)
from mm_assets_tests.store.committing import counted_writes, damage, flip

DROP = "raw/src/d1/drop.json"
SOURCE = "raw/src/source.yaml"


def tars(number: int = 4) -> dict[str, bytes]:
    return {f"t{n}.tar": tar_bytes([(f"s{n}.txt", f"text {n}".encode())]) for n in range(number)}


def rows(number: int = 4) -> dict[str, bytes]:
    index = jsonl(*({"id": f"r{n}", "text": f"row {n}", "image": f"{n}.png"} for n in range(number)))
    return {"index.jsonl": index} | {f"{n}.png": png(shade=n) for n in range(number)}


def fingerprints(
    store: Store, settings: Settings, release: str, *drops: tuple[str, str], num_shards: int = 2, **values: Any
) -> list[str]:
    spec = open_test_release(store, *(drops or (("src", "d1"),)), release=release, num_shards=num_shards, **values)
    return [snapshot_action(store, spec, shard, settings).fingerprint for shard in spec.shards()]


def rewrite(store: Store, key: str, old: bytes, new: bytes) -> None:
    current = store.read_key(key)
    assert current is not None
    assert old in current.data
    damage(store, key, current.data.replace(old, new))


@pytest.mark.parametrize("files", [tars(), rows()], ids=["webdataset", "index"])
def test_the_same_drop_in_another_release_is_not_computed_again(
    store: Store, settings: Settings, tmp_path: Path, files: Mapping[str, bytes]
) -> None:
    deliver(store, make_folder(tmp_path / "d", files))
    first = open_test_release(store, ("src", "d1"), num_shards=2)
    other = open_test_release(store, ("src", "d1"), num_shards=2, release="r2", seed=9)
    for shard in first.shards():
        made, again = freeze(store, first, shard, settings), freeze(store, other, shard, settings)
        assert (made.cached, again.cached) == (False, True)
        assert again.manifest.fingerprint == made.manifest.fingerprint
        assert again.manifest.content == made.manifest.content
        assert again.manifest.partition == Partition(release="r2", shard=shard)


@pytest.mark.parametrize("files", [tars(), rows()], ids=["webdataset", "index"])
@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        (DROP, b'"captured_from":null', b'"captured_from":"2026-01-01T00:00:00+00:00"'),
        (DROP, b'"guideline_version":"not declared"', b'"guideline_version":"7"'),
        (SOURCE, b"owner: not declared", b"owner: Ada"),
    ],
    ids=["capture range", "annotation", "source"],
)
def test_another_description_of_a_delivery_changes_no_shard(
    store: Store,
    settings: Settings,
    tmp_path: Path,
    files: Mapping[str, bytes],
    key: str,
    old: bytes,
    new: bytes,
) -> None:
    deliver(store, make_folder(tmp_path / "d", files))
    before = fingerprints(store, settings, "r1")
    rewrite(store, key, old, new)
    assert fingerprints(store, settings, "r2") == before


def test_rows_of_an_index_are_dealt_by_number_so_their_number_of_shards_counts(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    deliver(store, make_folder(tmp_path / "d", rows()))
    two, three = (fingerprints(store, settings, f"r{n}", num_shards=n) for n in (2, 3))
    assert len({*two, *three}) == 5


def test_a_shard_with_the_same_tars_is_the_same_whatever_the_number_of_shards(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    deliver(store, make_folder(tmp_path / "d", tars(4)))
    # Tar i is in shard i mod N: of 4 tars, shard 3 of 4 and shard 3 of 9 both hold t3 alone.
    four, nine = (fingerprints(store, settings, f"r{n}", num_shards=n) for n in (4, 9))
    assert nine[:4] == four
    assert len(set(nine[4:])) == 1, "all empty shards are one action"
    two = fingerprints(store, settings, "r2", num_shards=2)
    assert not set(two) & set(four)


def test_a_drop_that_grew_by_tars_of_another_shard_leaves_a_shard_as_it_was(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    deliver(store, make_folder(tmp_path / "d", tars(5)))
    before = fingerprints(store, settings, "r1", num_shards=3)
    deliver(store, make_folder(tmp_path / "e", {"z.tar": tar_bytes([("z.txt", b"z")])}), drop="d2")
    after = fingerprints(store, settings, "r2", ("src", "d1"), ("src", "d2"), num_shards=3)
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, True, False]


@pytest.mark.parametrize("files", [tars(), rows()], ids=["webdataset", "index"])
def test_bytes_names_and_ceilings_are_in_the_fingerprint(
    store: Store, settings: Settings, tmp_path: Path, files: Mapping[str, bytes]
) -> None:
    deliver(store, make_folder(tmp_path / "1", files))
    deliver(store, make_folder(tmp_path / "2", files), drop="d2")
    name = sorted(files)[0]
    other = tar_bytes([("s0.txt", b"other")]) if name.endswith(".tar") else png(shade=99)
    deliver(store, make_folder(tmp_path / "3", {**files, name: other}), drop="d3")
    found = [
        fingerprints(store, settings, "r1")[0],
        fingerprints(store, settings, "r2", ("src", "d2"))[0],
        fingerprints(store, settings, "r3", ("src", "d3"))[0],
        fingerprints(store, settings, "r4", config=SnapshotConfig(max_tar_members=7))[0],
    ]
    assert len(set(found)) == 4, "a sample's id begins with its source and drop"


def test_no_name_of_a_release_is_in_an_output(store: Store, settings: Settings, tmp_path: Path) -> None:
    deliver(store, make_folder(tmp_path / "d", tars()))
    name = "spectacular-release"
    spec = open_test_release(store, ("src", "d1"), release=name)
    manifest = freeze(store, spec, "0000", settings).manifest
    for output in manifest.outputs:
        assert name.encode() not in store.get_bytes(output.digest)
    assert name not in json.dumps(manifest.stats)


def test_looking_up_what_is_current_writes_nothing(store: Store, settings: Settings, tmp_path: Path) -> None:
    deliver(store, make_folder(tmp_path / "d", tars()))
    spec = open_test_release(store, ("src", "d1"))
    partition = Partition(release="r1", shard="0000")

    def find() -> object:
        with counted_writes(store) as writes:
            found = Workspace(settings, store).find_current("snapshot", partition, {})
        assert writes == []
        return found

    assert find() is None
    committed = freeze(store, spec, "0000", settings)
    assert find() is None, "it was not checked"
    assert Workspace(settings, store).check("snapshot", partition).passed
    key = ref_key("snapshot", partition)
    before = store.read_key(key)
    assert find() == committed.ref
    assert store.read_key(key) == before


def test_a_flipped_output_is_found_and_put_right(store: Store, settings: Settings, tmp_path: Path) -> None:
    deliver(store, make_folder(tmp_path / "d", tars()))
    spec = open_test_release(store, ("src", "d1"))
    first = freeze(store, spec, "0000", settings)
    digest = first.manifest.output("samples.tar").digest
    before = store.get_bytes(digest)
    flip(store, digest)
    again = freeze(store, spec, "0000", settings)
    assert (again.cached, again.manifest_digest) == (False, first.manifest_digest)
    assert store.get_bytes(digest) == before


def test_a_check_of_equal_data_under_equal_rules_is_made_once(store: Store, settings: Settings, tmp_path: Path) -> None:
    deliver(store, make_folder(tmp_path / "d", tars()))
    manifests: list[Manifest] = []
    for release in ("r1", "r2"):
        spec = open_test_release(store, ("src", "d1"), release=release)
        manifests.append(freeze(store, spec, "0000", settings).manifest)
    workspace = Workspace(settings, store)
    assert workspace.check("snapshot", manifests[0].partition).passed
    with counted_writes(store) as writes:
        assert workspace.require_passed("snapshot", manifests[1].partition).content == manifests[1].content
        assert workspace.check("snapshot", manifests[1].partition).passed
    assert writes == []
