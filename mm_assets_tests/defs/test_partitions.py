import pytest

from mm_assets.defs.partitions import require_fits, require_known, shard_partitions, to_key, to_partition
from mm_assets.errors import SettingsError, UsageError
from mm_assets.releases.spec import SCHEMA, DropPin, ReleaseSpec
from mm_assets.settings import read_settings
from mm_assets.store.manifest import Partition

DIGEST = "sha256:" + "0" * 64


def make_spec(num_shards: int) -> ReleaseSpec:
    return ReleaseSpec(
        schema=SCHEMA,
        release="r1",
        drops=[DropPin(source="s", drop="d", digest=DIGEST, source_digest=DIGEST)],
        parent=None,
        data_of=None,
        exclusions=[],
        policy={"name": "all", "sql": "true"},
        rules={},
        encoder={"kind": "none", "digest": DIGEST},
        seed=1,
        num_shards=num_shards,
        configuration={},
    )


@pytest.mark.parametrize("partition", [Partition(release="r1"), Partition(release="r-1.a_b", shard="0012")])
def test_a_key_names_its_partition_and_back(partition: Partition) -> None:
    assert to_partition(str(to_key(partition))) == partition


def test_shards_are_static_and_padded() -> None:
    partitions = shard_partitions(read_settings({"MM_NUM_SHARDS": "3"}))
    shards = next(d for d in partitions.partitions_defs if d.name == "shard").partitions_def
    assert list(shards.get_partition_keys()) == ["0000", "0001", "0002"]


def test_a_shard_beyond_its_release_is_refused_by_name() -> None:
    settings = read_settings({"MM_NUM_SHARDS": "4"})
    require_known(make_spec(2), Partition(release="r1", shard="0001"), settings)
    with pytest.raises(UsageError, match=r"^r1/0003: is not a shard of release r1: .* \(0000 to 0001\), got 0003\."):
        require_known(make_spec(2), Partition(release="r1", shard="0003"), settings)


def test_a_release_with_more_shards_than_the_deployment_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"release r1: .* at most 2, got 8\. Set MM_NUM_SHARDS=8"):
        require_fits(make_spec(8), read_settings({"MM_NUM_SHARDS": "2"}))
