"""Stage 3b: the order of the samples, and the model trained in that order."""

import dagster as dg

from mm_assets.defs.execution import Materialized, materialize


def batch_plan(context: dg.AssetExecutionContext) -> Materialized:
    """For every step and lane the packs of samples; a pure function of dataset release, parameters and seed."""
    return materialize(context, "batch_plan")


def model(context: dg.AssetExecutionContext) -> Materialized:
    """Weights in safetensors with spec, ledger and metrics; the same bits at any number of processes."""
    return materialize(context, "model")
