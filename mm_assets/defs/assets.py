"""Every row of the table of assets as a Dagster asset."""

import dagster as dg

from mm_assets.defs.automation import when_ready
from mm_assets.defs.execution import Materialized, materialize
from mm_assets.defs.partitions import RELEASE_DIMENSION, num_shards_of, partitions_of
from mm_assets.materialize import Workspace, code_of
from mm_assets.pipeline import ASSETS, Asset

OWNER = "team:ml-platform"
#: Runs that need an accelerator wait in this pool.
ACCELERATOR_POOL = "accelerator"


def asset_definition(asset: Asset, workspace: Workspace) -> dg.AssetsDefinition:
    """The asset of one row.

    Args:
        asset: The row.
        workspace: Settings and store of this process.
    """

    @dg.asset(
        name=asset.name,
        group_name=asset.stage,
        deps=[_dependency(asset, ASSETS[upstream]) for upstream in asset.upstream],
        partitions_def=partitions_of(asset, workspace.settings),
        code_version=code_of(asset).removeprefix("sha256:")[:12],
        automation_condition=when_ready(num_shards_of(workspace)),
        required_resource_keys={"workspace", "launcher"} if asset.is_launched else {"workspace"},
        pool=ACCELERATOR_POOL if asset.is_launched else None,
        kinds=set(asset.kinds),
        owners=[OWNER],
        tags={"level": "shard" if asset.is_sharded else "release", "worker": "own" if asset.is_launched else "run"},
        description=asset.description,
    )
    def body(context: dg.AssetExecutionContext) -> Materialized:
        return materialize(context, asset.name)

    return body


def _dependency(asset: Asset, upstream: Asset) -> dg.AssetDep:
    if upstream.is_sharded and not asset.is_sharded:
        return dg.AssetDep(
            upstream.name, partition_mapping=dg.MultiToSingleDimensionPartitionMapping(RELEASE_DIMENSION)
        )
    return dg.AssetDep(upstream.name, partition_mapping=dg.IdentityPartitionMapping())
