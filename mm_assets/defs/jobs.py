"""The two jobs: everything about one shard, and everything about one release."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mm_assets.pipeline import ASSETS

SHARD_JOB = "shard_job"
RELEASE_JOB = "release_job"


def job_for(is_sharded: bool) -> str:
    """The job that materializes shard-level or release-level assets."""
    return SHARD_JOB if is_sharded else RELEASE_JOB


def jobs() -> list[UnresolvedAssetJobDefinition]:
    """Both jobs, checks included. One run has one partition: checks of a range would not be evaluated per partition."""
    return [
        _job(
            is_sharded=True,
            description="One shard: snapshot, features and embeddings, each followed by its blocking check.",
        ),
        _job(
            is_sharded=False,
            description="One release: from the freeze to the registration, each followed by its blocking check.",
        ),
    ]


def _job(*, is_sharded: bool, description: str) -> UnresolvedAssetJobDefinition:
    names = [asset.name for asset in ASSETS.values() if asset.is_sharded == is_sharded]
    return dg.define_asset_job(job_for(is_sharded), selection=dg.AssetSelection.assets(*names), description=description)
