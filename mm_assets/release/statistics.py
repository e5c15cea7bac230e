"""Counts of a frozen release: per split, label, language and combination of modalities, and why others stayed out.

Reads the DuckDB table ``frozen`` (the rows of ``samples.parquet``); returns plain JSON, keys in sorted order.
"""

import duckdb

from mm_assets.identity.canonical import Json
from mm_assets.modalities.parts import PARTS
from mm_assets.modalities.table import NAMES
from mm_assets.release.config import SPLITS

_PRESENT = ", ".join(f"CASE WHEN has_{name} THEN '{name}' END" for name in NAMES)
COMBINATION = f"concat_ws('+', {_PRESENT})"


def count_by(database: duckdb.DuckDBPyConnection, expression: str, where: str = "selected") -> dict[str, int]:
    """Rows of ``frozen`` per value of ``expression``, sorted by value; "" stands for NULL."""
    rows = database.execute(
        f"""SELECT coalesce(CAST({expression} AS VARCHAR), '') AS value, count(*) FROM frozen WHERE {where}
            GROUP BY value ORDER BY value"""
    )
    return {value: int(count) for value, count in rows.fetchall()}


def release_statistics(database: duckdb.DuckDBPyConnection, *, num_dead_letters: int) -> dict[str, Json]:
    """The document ``stats.json`` without its drift."""
    splits = count_by(database, "split")
    parts = count_parts(database)
    return {
        "schema": "mm.release_stats/1",
        "num_samples": sum(count_by(database, "1", "TRUE").values()),
        "num_selected": sum(splits.values()),
        "num_labelled": sum(count_by(database, "1", "selected AND label IS NOT NULL").values()),
        "num_dead_letters": num_dead_letters,
        "splits": {split: _split(database, split, splits.get(split, 0)) for split in SPLITS},
        "labels": count_by(database, "label"),
        "languages": count_by(database, "language"),
        "modalities": count_by(database, COMBINATION),
        **({"parts": parts} if parts else {}),
        "reasons": _reasons(database),
        "conflicting_labels": _conflicting_labels(database),
    }


def count_parts(database: duckdb.DuckDBPyConnection) -> dict[str, Json]:
    """Parts of selected samples by modality, and samples that are not plain; nothing where all samples are plain."""
    names = {str(row[0]) for row in database.execute("DESCRIBE frozen").fetchall()}
    if PARTS not in names:
        return {}
    own = ", ".join(
        f"sum(CASE WHEN {PARTS} IS NULL THEN CAST(has_{name} AS INT) "
        f"ELSE len(list_filter({PARTS}, lambda part: part.modality = '{name}')) END)"
        for name in NAMES
    )
    found = database.execute(f"SELECT count({PARTS}), {own} FROM frozen WHERE selected").fetchall()[0]
    counts = {name: int(count or 0) for name, count in zip(NAMES, found[1:], strict=True)}
    return {"num_samples": int(found[0]), **counts}


def _split(database: duckdb.DuckDBPyConnection, split: str, num_samples: int) -> dict[str, Json]:
    where = f"selected AND split = '{split}'"
    return {
        "num_samples": num_samples,
        "num_labelled": sum(count_by(database, "1", f"{where} AND label IS NOT NULL").values()),
        "labels": count_by(database, "label", where),
        "languages": count_by(database, "language", where),
        "modalities": count_by(database, COMBINATION, where),
    }


def _reasons(database: duckdb.DuckDBPyConnection) -> dict[str, int]:
    rows = database.execute(
        """SELECT unnest(string_split(reasons, ',')) AS reason, count(*) FROM frozen WHERE NOT selected
           GROUP BY reason ORDER BY reason"""
    )
    return {reason: int(count) for reason, count in rows.fetchall()}


def _conflicting_labels(database: duckdb.DuckDBPyConnection) -> int:
    """Duplicates whose label differs from their original's: a question to the annotators."""
    rows = database.execute(
        """SELECT count(*) FROM frozen d JOIN frozen o ON d.duplicate_of = o.id AND o.selected
           WHERE d.label <> o.label"""
    )
    return int(rows.fetchall()[0][0])
