"""Label provenance of a release: a side table per labelled sample, which no later stage reads, and its summary."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from mm_assets.drops.labels import DROP_FIELDS
from mm_assets.identity.canonical import Json
from mm_assets.release.rows import BY_ID
from mm_assets.store.tables import ROW_GROUP_ROWS, write_batches

LABELS_FILE = "labels.parquet"
_STATED = tuple(DROP_FIELDS)
LABELS = pa.schema(
    [
        ("id", pa.string()), ("shard", pa.int32()), ("row", pa.int32()), ("label", pa.string()),
        ("source", pa.string()), ("drop", pa.string()), ("label_schema", pa.string()),
        *((name, pa.string()) for name in _STATED), ("label_confidence", pa.float64()),
    ]
)  # fmt: skip


def register_labels(database: duckdb.DuckDBPyConnection, record: Mapping[str, Any]) -> None:
    """The view ``labels``: every labelled row with what the sample says about its label, or else its drop."""
    described = {str(source["digest"]): source.get("label_schema_version") for source in record["sources"]}
    # Of a drop that an older record does not give a description: those of its source, where they agree.
    versions: dict[str, set[Any]] = {}
    for source in record["sources"]:
        versions.setdefault(str(source["source"]), set()).add(source.get("label_schema_version"))
    annotated: dict[tuple[str, str], dict[str, str | None]] = {}
    for drop in record["drops"]:
        of_source = versions.get(drop["source"], set())
        known = described.get(drop.get("source_digest", ""), next(iter(of_source)) if len(of_source) == 1 else None)
        annotation: Mapping[str, Any] = drop["annotation"] or {}
        # Of a drop that a line holds twice, as older versions let it, the first description counts.
        annotated.setdefault(
            (drop["source"], drop["drop"]),
            {
                "source": drop["source"],
                "drop": drop["drop"],
                "label_schema": _text(annotation.get("label_schema_version") or known),
                **{f"drop_{name}": _text(annotation.get(field)) for name, field in DROP_FIELDS.items()},
            },
        )
    names = ("source", "drop", "label_schema", *(f"drop_{name}" for name in _STATED))
    database.register(
        "annotations",
        pa.Table.from_pylist(list(annotated.values()), pa.schema([(name, pa.string()) for name in names])),
    )
    stated = ", ".join(f"coalesce(s.{name}, a.drop_{name}) AS {name}" for name in _STATED)
    database.execute(
        f"""CREATE OR REPLACE TEMP VIEW labels AS SELECT s.id, s.generation, s.selected, s.shard, s.row, s.label,
            s.source, s."drop", a.label_schema, {stated}, s.label_confidence FROM judged s
            LEFT JOIN annotations a ON s.source = a.source AND s."drop" = a."drop" WHERE s.label IS NOT NULL"""
    )


def write_labels(database: duckdb.DuckDBPyConnection, path: Path) -> int:
    """Writes ``labels.parquet`` in the order of ``samples.parquet`` and returns its number of rows."""
    columns = ", ".join(f'"{name}"' for name in LABELS.names)
    reader = database.sql(f"SELECT {columns} FROM labels ORDER BY {BY_ID}").to_arrow_reader(ROW_GROUP_ROWS)
    return write_batches(reader, LABELS, path)


def summarize_labels(database: duckdb.DuckDBPyConnection) -> list[Json]:
    """Labelled and selected samples by where their labels come from, for the release record."""
    names = ("source", "drop", "label_schema", *_STATED)
    # A mean of several threads depends on the order in which they end.
    database.execute("SET threads = 1")
    rows: Sequence[Sequence[Any]] = database.execute(
        f"""SELECT {", ".join(f'l."{name}"' for name in names)}, count(*), count(label_confidence),
            round(avg(label_confidence), 6) FROM labels l WHERE selected GROUP BY ALL ORDER BY ALL"""
    ).fetchall()
    database.execute("RESET threads")
    columns = (*names, "num_labelled", "num_with_confidence", "mean_confidence")
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _text(value: object) -> str | None:
    return None if value is None else str(value)
