"""Dagster's partition keys and the pipeline's partitions, one to one.

Shards are static and the same for every release (a dynamic shard dimension would add each new key to every old
release). A release with fewer shards than the deployment leaves its last keys unused: automation never requests
them, and materializing one by hand fails in ``require_known``.
"""

from collections.abc import Callable

import dagster as dg

from mm_assets.errors import SettingsError, UsageError
from mm_assets.materialize import Workspace
from mm_assets.pipeline import Asset
from mm_assets.releases.spec import ReleaseSpec, shard_key
from mm_assets.settings import Settings
from mm_assets.store.manifest import Partition

RELEASES = "releases"
RELEASE_DIMENSION = "release"
SHARD_DIMENSION = "shard"

release_partitions = dg.DynamicPartitionsDefinition(name=RELEASES)


def shard_partitions(settings: Settings) -> dg.MultiPartitionsDefinition:
    """Every shard key of the deployment for every release."""
    shards = dg.StaticPartitionsDefinition([shard_key(index) for index in range(settings.num_shards)])
    return dg.MultiPartitionsDefinition({RELEASE_DIMENSION: release_partitions, SHARD_DIMENSION: shards})


def partitions_of(asset: Asset, settings: Settings) -> dg.PartitionsDefinition:
    """The partitions of an asset and of its check."""
    return shard_partitions(settings) if asset.is_sharded else release_partitions


def to_partition(key: str) -> Partition:
    """The partition a Dagster key (``release`` or ``release|shard``) names."""
    release, _, shard = key.partition("|")
    return Partition(release=release, shard=shard or None)


def to_key(partition: Partition) -> str:
    """The Dagster key of a partition."""
    if partition.shard is None:
        return partition.release
    return dg.MultiPartitionKey({RELEASE_DIMENSION: partition.release, SHARD_DIMENSION: partition.shard})


def num_shards_of(workspace: Workspace) -> Callable[[str], int]:
    """Number of shards of an open release, remembered per release.

    The code server asks, and it outlives an embedded store that was stopped and started again at another port, so a
    release it does not know yet is looked up through a new client.
    """
    known: dict[str, int] = {}

    def num_shards(release: str) -> int:
        if release not in known:
            known[release] = Workspace(workspace.settings).spec(release).num_shards
        return known[release]

    return num_shards


def require_known(spec: ReleaseSpec, partition: Partition, settings: Settings) -> None:
    """Refuses a partition that the release does not have, or a release that this deployment cannot hold.

    Raises:
        UsageError: the shard is beyond the release's last one.
        SettingsError: the release has more shards than the deployment.
    """
    require_fits(spec, settings)
    if partition.shard is not None and not spec.has_shard(partition.shard):
        shards = f"{shard_key(0)} to {shard_key(spec.num_shards - 1)}" if spec.num_shards else "none (an experiment)"
        raise UsageError(
            f"{partition.path}: is not a shard of release {spec.release}: expected one of its {spec.num_shards} shards "
            f"({shards}), got {partition.shard}. Leave this partition empty."
        )


def require_fits(spec: ReleaseSpec, settings: Settings) -> None:
    """Refuses a release that has more shards than this deployment has partition keys for.

    Raises:
        SettingsError: it has.
    """
    if spec.num_shards > settings.num_shards:
        raise SettingsError(
            f"release {spec.release}: has more shards than this deployment: expected at most {settings.num_shards}, "
            f"got {spec.num_shards}. Set MM_NUM_SHARDS={spec.num_shards} and restart Dagster."
        )
