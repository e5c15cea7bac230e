"""Stage 2: every blob decoded once, its signals, and embeddings from a worker of their own."""

import dagster as dg

from mm_assets.defs.execution import Materialized, materialize


def features(context: dg.AssetExecutionContext) -> Materialized:
    """The shard's samples decoded once into Arrow tensors, with quality signals that drop nothing."""
    return materialize(context, "features")


def embeddings(context: dg.AssetExecutionContext) -> Materialized:
    """A vector per modality by the release's pinned encoder; feeds near-duplicate and coherence signals."""
    return materialize(context, "embeddings")
