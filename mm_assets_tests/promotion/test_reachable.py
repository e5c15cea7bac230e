"""Everything a registration makes reachable is re-hashed first: a flipped byte anywhere below it stops it by name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mm_assets.drops.record import Drop, DropObject
from mm_assets.errors import ObjectCorruptError, ObjectMissingError
from mm_assets.evaluation.report import Report
from mm_assets.identity.canonical import digest_bytes
from mm_assets.promotion.chain import read_production
from mm_assets.promotion.reachable import object_target, verify_reachable, walk_objects
from mm_assets.store.commit import Committed
from mm_assets.store.manifest import Input, Manifest, Partition, read_manifest
from mm_assets.store.objects import Store, object_key
from mm_assets_tests.by_hand import action_of, commit_files

Promote = Callable[..., Committed]
ReportOf = Callable[..., Report]


def flip(store: Store, key: str) -> None:
    """Flips one bit; the size stays."""
    current = store.read_key(key)
    assert current is not None
    data = bytes([current.data[0] ^ 1]) + current.data[1:]
    store.client.put_object(Bucket=store.bucket, Key=f"{store.prefix}/{key}", Body=data)


def model_of(store: Store, promotion: Manifest) -> Manifest:
    return read_manifest(store, promotion.input("model").manifest)


@pytest.fixture
def promoted(promote: Promote, report_of: ReportOf) -> Committed:
    return promote("r1", report_of())


def test_a_sound_promotion_is_counted(store: Store, promoted: Committed) -> None:
    calls: list[int] = []
    count = verify_reachable(store, [promoted.manifest_digest], lambda: calls.append(1))
    # Five manifests; of the release 3 objects, the plan, of the model 4, of the evaluation 2, the decision and
    # the card.
    assert count == len(calls) == 17


@pytest.mark.parametrize(
    ("asset", "name"),
    [
        ("model", "weights.safetensors"),
        ("evaluation", "report.json"),
        ("evaluation", "predictions.parquet"),
        ("dataset_release", "record.json"),
    ],
)
def test_a_flipped_bit_is_named_before_anything_is_registered(
    store: Store, promoted: Committed, asset: str, name: str
) -> None:
    upstream = read_manifest(store, promoted.manifest.input(asset).manifest)
    key = object_key(upstream.output(name).digest)
    flip(store, key)
    with pytest.raises(ObjectCorruptError, match=f"{key}: bytes do not match their digest: expected sha256"):
        verify_reachable(store, [promoted.manifest_digest])
    assert read_production(store) is None


def test_an_object_that_is_gone_is_named(store: Store, promoted: Committed) -> None:
    key = object_key(model_of(store, promoted.manifest).output("weights.safetensors").digest)
    store.client.delete_object(Bucket=store.bucket, Key=f"{store.prefix}/{key}")
    with pytest.raises(ObjectMissingError, match=f"{key}: does not exist"):
        verify_reachable(store, [promoted.manifest_digest])


def test_a_damaged_manifest_is_named(store: Store, promoted: Committed) -> None:
    key = object_key(promoted.manifest.input("dataset_release").manifest)
    flip(store, key)
    with pytest.raises(ObjectCorruptError, match=key):
        verify_reachable(store, [promoted.manifest_digest])


@pytest.fixture
def shard(store: Store, tmp_path: Path) -> Committed:
    """A shard of an asset that nobody listed anywhere, made from a drop with two raw objects."""
    for key in ("a.tar", "b.tar"):
        assert store.create_key(f"raw/zoo/d1/{key}", f"bytes of {key}".encode())
    objects = [
        DropObject(key=key, size_bytes=14, sha256=digest_bytes(f"bytes of {key}".encode()).removeprefix("sha256:"))
        for key in ("a.tar", "b.tar")
    ]
    drop = Drop(
        schema="mm.drop/1", source="zoo", drop="d1", captured_from=None, captured_to=None, format="webdataset",
        objects=objects, annotation={},
    )  # fmt: skip
    # As somebody wrote it by hand: not canonical.
    digest = store.put_bytes(json.dumps(drop.model_dump(by_alias=True), indent=2).encode())
    encoder = store.put_bytes(b"{ not JSON, but it begins like it")
    inputs = (
        Input(asset="drop", partition={"source": "zoo", "drop": "d1"}, manifest=digest, outputs=[]),
        Input(asset="encoder", partition={}, manifest=encoder, outputs=[]),
    )
    path = tmp_path / "toy.bin"
    path.write_bytes(b"toy")
    return commit_files(store, action_of("toy", inputs), Partition(release="r1", shard="0000"), {"toy.bin": path})


def test_raw_objects_of_a_drop_are_reached(store: Store, shard: Committed) -> None:
    assert verify_reachable(store, [shard.manifest_digest]) == 6
    flip(store, "raw/zoo/d1/b.tar")
    with pytest.raises(ObjectCorruptError, match="raw/zoo/d1/b.tar: bytes do not match their digest"):
        verify_reachable(store, [shard.manifest_digest])


def test_every_damaged_key_is_reported_and_the_rest_is_still_read(store: Store, shard: Committed) -> None:
    flip(store, "raw/zoo/d1/a.tar")
    store.client.delete_object(Bucket=store.bucket, Key=f"{store.prefix}/raw/zoo/d1/b.tar")
    walk = walk_objects(store, [object_target(shard.manifest_digest, is_input=True)])
    assert (walk.num_objects, list(walk.corrupt), list(walk.missing)) == (6, ["raw/zoo/d1/a.tar"], ["raw/zoo/d1/b.tar"])
    with pytest.raises(ObjectCorruptError, match="1 more of 6 objects are damaged"):
        verify_reachable(store, [shard.manifest_digest])


def test_an_object_that_is_an_output_and_an_input_is_followed(store: Store, shard: Committed) -> None:
    roots = [object_target(shard.manifest_digest), object_target(shard.manifest_digest, is_input=True)]
    assert walk_objects(store, roots).num_objects == 6
