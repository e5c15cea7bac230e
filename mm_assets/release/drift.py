"""How the samples a release adds differ from its parent's: total variation and population stability index.

Compared are the selected samples of the release's own shards with those the parent's shards contribute, so that a
small delivery is not hidden by a large history. A drift never fails a release; it is a warning for its owner.
"""

import math
from collections.abc import Mapping, Sequence

import duckdb
import numpy as np
import pyarrow as pa

from mm_assets.features.schema import EMBEDDING_SIGNALS
from mm_assets.features.schema import SIGNALS as FEATURE_SIGNALS
from mm_assets.identity.canonical import Json
from mm_assets.modalities.table import MODALITIES
from mm_assets.release.statistics import COMBINATION

FIELDS = {"label": "label", "language": "language", "modalities": COMBINATION}
#: Every signal that is a number. What a sample has of a modality is among the fields; lengths follow from it.
SIGNALS = tuple(
    field.name
    for field in (*FEATURE_SIGNALS, *EMBEDDING_SIGNALS)
    if (pa.types.is_floating(field.type) or pa.types.is_integer(field.type))
    and field.name not in {row.length_column for row in MODALITIES.values()}
)
QUANTILES = tuple(step / 10 for step in range(1, 10))
#: Values that moved most, listed per field.
NUM_LISTED = 5
#: Digits kept, so that the last bit of a platform's logarithm does not reach a digest.
DIGITS = 6


def total_variation(before: Sequence[int], after: Sequence[int]) -> float:
    """Half the sum of absolute differences of two distributions given as counts, in [0, 1]."""
    if not sum(before) or not sum(after):
        return 0.0
    pairs = zip(before, after, strict=True)
    return round(sum(abs(b / sum(before) - a / sum(after)) for b, a in pairs) / 2, DIGITS)


def stability_index(before: Sequence[int], after: Sequence[int]) -> float:
    """Population stability index of two distributions given as counts, half a sample added to every bin."""
    if not sum(before) or not sum(after):
        return 0.0
    bins = len(before)
    shares = [
        ((b + 0.5) / (sum(before) + bins / 2), (a + 0.5) / (sum(after) + bins / 2))
        for b, a in zip(before, after, strict=True)
    ]
    return round(math.fsum((a - b) * math.log(a / b) for b, a in shares), DIGITS)


def measure_drift(database: duckdb.DuckDBPyConnection, *, generation: int, limit: float) -> dict[str, Json] | None:
    """Drift per field and signal, or None for a release without a parent.

    Args:
        database: Holds ``judged``.
        generation: Of the release's own shards, which are compared with all others; 0 without a parent.
        limit: Index above which a field or signal is named in ``warnings``.
    """
    if generation == 0:
        return None
    is_new = "(generation = $generation)"
    sizes = database.execute(
        f"SELECT count(*) FILTER (NOT {is_new}), count(*) FILTER ({is_new}) FROM judged WHERE selected",
        {"generation": generation},
    ).fetchall()[0]
    fields: dict[str, Json] = {name: _field(database, expression, generation) for name, expression in FIELDS.items()}
    signals = {name: _signal(database, name, generation) for name in SIGNALS}
    measured: dict[str, Mapping[str, Json]] = {**fields, **{k: v for k, v in signals.items() if v is not None}}  # pyright: ignore[reportAssignmentType]
    warnings = sorted(
        name
        for name, drift in measured.items()
        if max(float(str(drift["stability_index"])), float(str(drift["total_variation"]))) > limit
    )
    return {
        "num_before": int(sizes[0]),
        "num_added": int(sizes[1]),
        "limit": limit,
        "fields": fields,
        "signals": {name: drift for name, drift in signals.items() if drift is not None},
        "warnings": warnings,
    }


def _field(database: duckdb.DuckDBPyConnection, expression: str, generation: int) -> dict[str, Json]:
    rows = database.execute(
        f"""SELECT coalesce({expression}, '') AS value, count(*) FILTER (generation <> $generation),
            count(*) FILTER (generation = $generation) FROM judged WHERE selected GROUP BY value ORDER BY value""",
        {"generation": generation},
    ).fetchall()
    before, after = [row[1] for row in rows], [row[2] for row in rows]
    total_before, total_after = max(sum(before), 1), max(sum(after), 1)
    moved = sorted(rows, key=lambda row: (-abs(row[1] / total_before - row[2] / total_after), row[0]))
    return {
        **_indices(before, after),
        "largest": [{"value": row[0], "before": row[1], "added": row[2]} for row in moved[:NUM_LISTED]],
    }


def _indices(before: Sequence[int], after: Sequence[int]) -> dict[str, Json]:
    return {"total_variation": total_variation(before, after), "stability_index": stability_index(before, after)}


def _signal(database: duckdb.DuckDBPyConnection, name: str, generation: int) -> dict[str, Json] | None:
    """Drift over the parent's deciles; None where one side has no sample with this signal."""
    values = [
        database.execute(
            f"""SELECT CAST({name} AS DOUBLE) AS value FROM judged
                WHERE selected AND {name} IS NOT NULL AND (generation = $generation) = $is_new
                ORDER BY value""",
            {"generation": generation, "is_new": is_new},
        ).fetchnumpy()["value"]
        for is_new in (False, True)
    ]
    if not len(values[0]) or not len(values[1]):
        return None
    deciles = [np.asarray(v)[[int(q * (len(v) - 1)) for q in QUANTILES]] for v in values]
    edges = np.unique(deciles[0])
    bins = [np.searchsorted(edges, np.asarray(v), side="left") for v in values]
    before, after = (np.bincount(b, minlength=len(edges) + 1).tolist() for b in bins)
    return {
        **_indices(before, after),
        "deciles_before": [round(float(value), DIGITS) for value in deciles[0]],
        "deciles_added": [round(float(value), DIGITS) for value in deciles[1]],
    }
