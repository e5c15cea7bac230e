"""The number of shards follows from the drop: its bytes, its tars, and the keys of the deployment."""

from dataclasses import replace
from pathlib import Path

import pytest

from mm_assets.configurations import ReleaseRequest, open_named_release
from mm_assets.defs.partitions import shard_partitions
from mm_assets.drops.record import Drop, DropObject
from mm_assets.errors import SettingsError
from mm_assets.materialize import Workspace
from mm_assets.releases.sizing import choose_num_shards
from mm_assets.releases.spec import ReleaseSpec, shard_key
from mm_assets.settings import MAX_SHARDS, Settings, read_settings
from mm_assets.store.objects import Store
from mm_assets_tests.drops.raw_data import deliver, make_folder, tar_bytes

MIB, GIB = 1 << 20, 1 << 30


def drop(kind: str, *sizes: int) -> Drop:
    names = [f"{number:05d}.tar" for number in range(len(sizes))]
    if kind == "index":
        names[0] = "index.jsonl"
    objects = [DropObject(key=name, size_bytes=size, sha256="0" * 64) for name, size in zip(names, sizes, strict=True)]
    return Drop(
        schema="mm.drop/1", source="s", drop="d", captured_from=None, captured_to=None,
        format="index" if kind == "index" else "webdataset", objects=objects, annotation={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("drops", "cap", "expected"),
    [
        ([drop("tars", 5 * GIB)], 64, 1),
        ([drop("tars", *[GIB] * 10)], 64, 10),
        ([drop("tars", *[GIB] * 10)], 4, 4),
        ([drop("index", 5, 10 * GIB)], 64, 11),
        ([drop("tars", 1)], 64, 1),
        ([drop("index", 100)], 64, 1),
        ([drop("tars", *[14 * MIB] * 8)], 4, 4),
        ([drop("tars", *[14 * MIB] * 8)], 64, 4),
        ([drop("tars", *[20 * MIB] * 2)], 64, 2),
        ([drop("tars", GIB), drop("index", 3 * GIB)], 64, 4),
        ([drop("index", 200_000 * GIB)], MAX_SHARDS, 100_000),
    ],
)
def test_shards_follow_from_the_bytes_the_tars_and_the_keys(drops: list[Drop], cap: int, expected: int) -> None:
    assert choose_num_shards(drops, cap=cap) == expected


def test_a_one_tar_child_gets_one_shard_whatever_the_deployment_holds(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    deliver(store, make_folder(tmp_path / "d1", {"a.tar": tar_bytes([("x.txt", b"text")])}), drop="d1")
    workspace = Workspace(replace(settings, num_shards=64), store)
    spec = open_named_release(workspace, ReleaseRequest(release="r1", drops=(("src", "d1"),)))
    assert spec.shards() == ["0000"]
    again = Workspace(replace(settings, num_shards=8), store)
    assert open_named_release(again, ReleaseRequest(release="r1", drops=(("src", "d1"),))) == spec
    with pytest.raises(SettingsError, match="release r2: asks for more shards .* at most 8, got 9"):
        open_named_release(again, ReleaseRequest(release="r2", drops=(("src", "d1"),), num_shards=9))


def test_keys_have_five_digits_beyond_9999_and_none_changes_when_the_deployment_grows() -> None:
    assert [shard_key(number) for number in (0, 9_999, 10_000, 99_999)] == ["0000", "9999", "10000", "99999"]
    small = shard_partitions(read_settings({"MM_NUM_SHARDS": "3"}))
    assert small.secondary_dimension.partitions_def.get_partition_keys() == ["0000", "0001", "0002"]
    many = ReleaseSpec.model_construct(num_shards=20_000)
    assert many.has_shard("10000")
    assert many.has_shard("0007")
    assert not many.has_shard("00007")
    assert not many.has_shard("20000")
    assert len(set(many.shards())) == 20_000
