"""``samples.parquet`` read back for its check: the table ``frozen`` with the position of every row."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mm_assets.release.config import SPLITS
from mm_assets.release.dedup import Bools, Ints, register_positions
from mm_assets.release.rows import INSERT_ROWS, Rows

COLUMNS = ("id", "shard", "row", "split", "selected", "reasons", "label", "group")


@dataclass(frozen=True, kw_only=True, slots=True)
class Frozen:
    """What a release says about every row of its shards.

    Attributes:
        split: By position the split of a selected row, -1 of every other one.
        is_complete: Every row of the shards is there once, under its own id, and nothing else is.
    """

    split: Ints
    is_complete: bool


def load_frozen(rows: Rows, samples: Path) -> Frozen:
    """Makes the table ``frozen`` in the database of ``rows``; ``position`` is NULL for a place that no shard has."""
    database = rows.database
    split, num_times = np.full(rows.num_rows, -1, dtype=np.int64), np.zeros(rows.num_rows, dtype=np.int64)
    num_elsewhere = 0
    database.register("nothing", pq.read_schema(samples).empty_table().select(list(COLUMNS)))
    database.execute("CREATE TABLE frozen AS SELECT *, NULL::BIGINT AS position FROM nothing")
    with pq.ParquetFile(samples) as file:
        for found in file.iter_batches(batch_size=INSERT_ROWS, columns=list(COLUMNS), use_threads=False):
            batch = pa.Table.from_batches([found])
            position, is_there = _positions(rows, batch)
            num_elsewhere += int((~is_there).sum())
            np.add.at(num_times, position[is_there], 1)
            is_used = is_there & batch["selected"].to_numpy()
            split[position[is_used]] = _numbers(batch["split"])[is_used]
            database.register("batch", batch.append_column("position", pa.array(position, mask=~is_there)))
            database.execute("INSERT INTO frozen BY NAME SELECT * FROM batch")
            database.unregister("batch")
    (num_renamed,) = database.execute(
        "SELECT count(*) FROM frozen f JOIN samples s USING (position) WHERE f.id <> s.id"
    ).fetchall()[0]
    is_complete = not num_elsewhere and not num_renamed and bool((num_times == 1).all())
    return Frozen(split=split, is_complete=is_complete)


def _positions(rows: Rows, batch: pa.Table) -> tuple[Ints, Bools]:
    """The position of every row's place, and whether a shard has that place."""
    shard, row = (batch[name].to_numpy().astype(np.int64) for name in ("shard", "row"))
    num_shards = len(rows.starts) - 1
    is_there = (shard >= 0) & (shard < num_shards) & (row >= 0)
    known = np.where(is_there, shard, 0)
    if num_shards:
        is_there &= row < (rows.starts[1:] - rows.starts[:-1])[known]
    return np.where(is_there, rows.starts[known] + row, 0), is_there


def _numbers(split: pa.ChunkedArray) -> Ints:
    return pc.index_in(split, pa.array(SPLITS)).fill_null(-1).to_numpy().astype(np.int64)  # pyright: ignore[reportAttributeAccessIssue]


def ids_of(rows: Rows, positions: Ints) -> list[str]:
    """Ids of positions, sorted and without repetition."""
    register_positions(rows.database, "asked", positions)
    found = rows.database.execute("SELECT DISTINCT id FROM samples SEMI JOIN asked USING (position) ORDER BY id")
    return [row[0] for row in found.fetchall()]
