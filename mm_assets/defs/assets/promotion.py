"""Stage 5: the decision, and the one write that moves production."""

import dagster as dg

from mm_assets.defs.execution import Materialized, materialize


def promotion(context: dg.AssetExecutionContext) -> Materialized:
    """Every gate with its value and threshold, the decision and the model card; moves the registry if all pass."""
    return materialize(context, "promotion")
