"""Stage 3a: the freeze, where shards become one dataset."""

import dagster as dg

from mm_assets.defs.execution import Materialized, materialize


def dataset_release(context: dg.AssetExecutionContext) -> Materialized:
    """The frozen dataset: duplicates, curation, splits, statistics and drift, release record and dataset card.

    Refuses to run unless every shard of the release exists and passed its gates.
    """
    return materialize(context, "dataset_release")
