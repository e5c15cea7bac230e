"""Stage 1: raw data becomes a committed manifest."""

import dagster as dg

from mm_assets.defs.execution import Materialized, materialize


def snapshot(context: dg.AssetExecutionContext) -> Materialized:
    """The shard's raw samples, frozen: one deterministic WebDataset tar, a row per sample, a row per dead letter."""
    return materialize(context, "snapshot")
