"""How a stage's function becomes an asset: everything but its one line of body, its description and its kinds."""

from collections.abc import Callable

import dagster as dg

from mm_assets.defs.automation import when_ready
from mm_assets.defs.execution import Materialized
from mm_assets.defs.partitions import RELEASE_DIMENSION, partitions_of
from mm_assets.defs.resources import Workspace
from mm_assets.identity.code import code_digest
from mm_assets.pipeline import ASSETS, Asset

Body = Callable[[dg.AssetExecutionContext], Materialized]

OWNER = "team:ml-platform"
#: Runs that need an accelerator wait in this pool.
ACCELERATOR_POOL = "accelerator"


def asset_definition(body: Body, workspace: Workspace, *, kinds: set[str]) -> dg.AssetsDefinition:
    """The asset named like ``body``, whose docstring is its description in the UI.

    Args:
        body: Materializes the context's partition.
        workspace: Settings and store of this process.
        kinds: What it is made with or made of; icons in the UI.
    """
    asset = ASSETS[body.__name__]
    return dg.asset(
        name=asset.name,
        group_name=asset.stage,
        deps=[_dependency(asset, ASSETS[upstream]) for upstream in asset.upstream],
        partitions_def=partitions_of(asset, workspace.settings),
        code_version=code_digest(asset.compute.partition(":")[0]).removeprefix("sha256:")[:12],
        automation_condition=when_ready(workspace.num_shards),
        required_resource_keys={"workspace", "launcher"} if asset.is_launched else {"workspace"},
        pool=ACCELERATOR_POOL if asset.is_launched else None,
        kinds=kinds,
        owners=[OWNER],
        tags={"level": "shard" if asset.is_sharded else "release", "worker": "own" if asset.is_launched else "run"},
        description=(body.__doc__ or "").strip(),
    )(body)


def _dependency(asset: Asset, upstream: Asset) -> dg.AssetDep:
    if upstream.is_sharded and not asset.is_sharded:
        return dg.AssetDep(
            upstream.name, partition_mapping=dg.MultiToSingleDimensionPartitionMapping(RELEASE_DIMENSION)
        )
    return dg.AssetDep(upstream.name, partition_mapping=dg.IdentityPartitionMapping())
