"""What the UI shows of a release: the data version of every partition whose check is green, a few queries an asset."""

from collections.abc import Mapping, Sequence

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from mm_assets.defs.metadata import CHECK
from mm_assets.defs.partitions import to_key
from mm_assets.store.manifest import Partition

#: SQLite takes at most 32,766 variables in one query, older builds of it 999.
MAX_KEYS_PER_QUERY = 900


def shown_as_green(
    instance: dg.DagsterInstance, asset: str, partitions: Sequence[Partition]
) -> Mapping[Partition, str]:
    """Data version of each partition that is materialized and whose latest check, about just that, passed."""
    shown: dict[Partition, str] = {}
    for start in range(0, len(partitions), MAX_KEYS_PER_QUERY):
        by_key = {str(to_key(partition)): partition for partition in partitions[start : start + MAX_KEYS_PER_QUERY]}
        shown |= {by_key[key]: version for key, version in _shown(instance, asset, list(by_key)).items()}
    return shown


def _shown(instance: dg.DagsterInstance, asset: str, keys: list[str]) -> Mapping[str, str]:
    asset_key, storage = dg.AssetKey(asset), instance.event_log_storage
    checks = storage.get_asset_check_partition_info([dg.AssetCheckKey(asset_key, CHECK)], partition_keys=keys)
    passed = AssetCheckExecutionRecordStatus.SUCCEEDED
    green = {info.partition_key for info in checks if info.latest_execution_status == passed and info.is_current}
    tags = storage.get_latest_tags_by_partition(
        asset_key, dg.DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG], asset_partitions=keys
    )
    return {key: found[DATA_VERSION_TAG] for key, found in tags.items() if key in green and DATA_VERSION_TAG in found}
