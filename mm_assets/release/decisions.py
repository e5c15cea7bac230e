"""What was decided about every row: the table ``frozen``, which is ``samples.parquet``, and the view ``judged``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from mm_assets.features.schema import PARTS_FIELD
from mm_assets.modalities.parts import PARTS
from mm_assets.modalities.table import MODALITIES, NAMES
from mm_assets.release.config import SPLITS
from mm_assets.release.contamination import CONTAMINATION
from mm_assets.release.curation import Verdicts
from mm_assets.release.dedup import CONTENT, Bools, Ints
from mm_assets.release.rows import BY_ID, Rows
from mm_assets.store.tables import ROW_GROUP_ROWS, write_batches

LEAKAGE = "leakage"

SAMPLES = pa.schema(
    [
        ("id", pa.string()), ("shard", pa.int32()), ("row", pa.int32()),
        ("split", pa.string()), ("selected", pa.bool_()), ("reasons", pa.string()), ("duplicate_of", pa.string()),
        ("label", pa.string()), ("language", pa.string()), ("group", pa.string()), ("source", pa.string()),
        ("drop", pa.string()), *((f"has_{name}", pa.bool_()) for name in NAMES),
        *((row.length_column, pa.int32()) for row in MODALITIES.values() if row.length_column is not None),
    ]
)  # fmt: skip
#: Of every part what it is and how long; what it measures is not repeated.
_PARTS = f", [{{'modality': part.modality, 'length': part.length}} FOR part IN s.{PARTS}] AS {PARTS}"
_DECIDED = ("split", "selected", "reasons", "duplicate_of")


@dataclass(frozen=True, kw_only=True, slots=True)
class Decisions:
    """What was decided about every row, in the order of ``position``; ``groups`` are its leakage groups."""

    split: Ints
    groups: Ints
    original: Ints
    leaked: Bools
    contaminated: Ints

    @property
    def is_contaminated(self) -> Bools:
        """Rows that an evaluation set keeps out of training: ``contaminated`` says which, or -1."""
        return (self.contaminated >= 0) & (self.split != SPLITS.index("test")) & ~self.leaked


def decided(database: duckdb.DuckDBPyConnection, verdicts: Verdicts, decisions: Decisions) -> pa.Table:
    """The decided columns of ``samples.parquet``, in the order of ``position``."""
    num_rows = len(decisions.original)
    copies = np.flatnonzero(decisions.original != np.arange(num_rows))
    database.register("copies", pa.table({"position": copies, "original": decisions.original[copies]}))
    found = database.sql(
        f"""SELECT c.position, o.id, coalesce(s.content = o.content, FALSE) AS is_exact FROM copies c
            JOIN (SELECT position, {CONTENT} AS content FROM samples) s ON s.position = c.position
            JOIN (SELECT position, id, {CONTENT} AS content FROM samples) o ON o.position = c.original"""
    ).to_arrow_table()
    place = found["position"].to_numpy()
    exact, near = np.zeros(num_rows, np.bool_), np.zeros(num_rows, np.bool_)
    exact[place] = found["is_exact"].to_numpy()
    near[place] = ~exact[place]
    number = np.full(num_rows, -1, np.int32)
    number[place] = np.arange(len(place))
    reasons, is_selected = _reasons(
        {
            "excluded": verdicts.excluded,
            **verdicts.refused,
            "duplicate_id": verdicts.repeated_id,
            "unlabelled": verdicts.unlabelled,
            "duplicate": exact,
            "near_duplicate": near,
            LEAKAGE: decisions.leaked,
            CONTAMINATION: decisions.is_contaminated,
        }
    )
    split = pa.DictionaryArray.from_arrays(pa.array(decisions.split.astype(np.int8)), pa.array(SPLITS))
    return pa.table(
        {
            "split": split,
            "selected": pa.array(is_selected),
            "reasons": reasons,
            "duplicate_of": pa.DictionaryArray.from_arrays(
                pa.array(number, mask=number < 0), found["id"].combine_chunks()
            ),
        }
    )


def _reasons(flags: Mapping[str, Bools]) -> tuple[pa.DictionaryArray, Bools]:
    """For every row the names of its flags, comma-joined in their order, and whether it has none."""
    names = list(flags)
    # Few of the possible combinations occur; each is written once.
    numbers = np.zeros(len(next(iter(flags.values()))), np.int64)
    for bit, flag in enumerate(flags.values()):
        numbers |= flag.astype(np.int64) << bit
    present, index = np.unique(numbers, return_inverse=True)
    joined = [",".join(name for bit, name in enumerate(names) if number >> bit & 1) for number in present.tolist()]
    return pa.DictionaryArray.from_arrays(pa.array(index.astype(np.int32)), pa.array(joined, pa.string())), numbers == 0


def write_samples(rows: Rows, table: pa.Table, path: Path) -> Path:
    """Makes ``frozen`` and ``judged`` of what was decided, and writes ``samples.parquet``.

    ``frozen`` has the columns of ``samples.parquet`` in its order; ``judged`` has those of ``samples`` and what was
    decided, in the order of ``position``.
    """
    database = rows.database
    database.register("decided", table)
    (num_parts,) = database.execute(f"SELECT count({PARTS}) FROM samples").fetchall()[0]
    schema = SAMPLES.append(PARTS_FIELD) if num_parts else SAMPLES
    stored = ", ".join(
        f'CAST(d.{name} AS VARCHAR) AS "{name}"' if name in ("reasons", "duplicate_of", "split")
        else f'd.{name}' if name in _DECIDED else f's."{name}"'
        for name in SAMPLES.names
    )  # fmt: skip
    database.execute(
        "CREATE OR REPLACE TEMP VIEW judged AS SELECT s.*, d.selected, d.split, d.reasons "
        "FROM samples s POSITIONAL JOIN decided d"
    )
    order = ", ".join(f"s.{name}" for name in BY_ID.split(", "))
    columns = stored + (_PARTS if num_parts else "")
    database.execute(
        f"CREATE TABLE frozen AS SELECT {columns} FROM samples s POSITIONAL JOIN decided d ORDER BY {order}"
    )
    reader = database.sql("SELECT * FROM frozen").to_arrow_reader(ROW_GROUP_ROWS)
    write_batches(reader, schema, path)
    return path
