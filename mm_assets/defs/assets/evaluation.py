"""Stage 4: what the model is worth, slice by slice."""

import dagster as dg

from mm_assets.defs.execution import Materialized, materialize


def evaluation(context: dg.AssetExecutionContext) -> Materialized:
    """Accuracy per slice and corruption, calibration, retrieval, and every single prediction."""
    return materialize(context, "evaluation")
