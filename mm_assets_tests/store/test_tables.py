"""Rows that are written one by one make the bytes that a table of them makes."""

import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mm_assets.store.tables import PENDING_BYTES, RowsWriter, table_of, write_parquet

SCHEMA = pa.schema([("id", pa.string()), ("parts", pa.list_(pa.int64()))])
NUM_ROWS = 600


def row(number: int) -> dict[str, object]:
    """A row with numbers of its own, as one that was parsed has."""
    return {"id": str(number), "parts": [10_000 * number + part for part in range(1_000, 1_250)]}


def written(path: Path, *, size_bytes: int) -> int:
    """The most memory that Python objects took while the rows were written."""
    tracemalloc.start()
    with RowsWriter(path, SCHEMA) as writer:
        for number in range(NUM_ROWS):
            writer.append(row(number), size_bytes=size_bytes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_rows_that_weigh_much_are_few_at_a_time_and_the_same_bytes(tmp_path: Path) -> None:
    write_parquet(table_of([row(number) for number in range(NUM_ROWS)], SCHEMA), tmp_path / "whole")
    light = written(tmp_path / "light", size_bytes=0)
    heavy = written(tmp_path / "heavy", size_bytes=PENDING_BYTES // 100)
    assert heavy < light / 3
    assert pq.read_metadata(tmp_path / "heavy").num_row_groups == 1
    assert (tmp_path / "heavy").read_bytes() == (tmp_path / "light").read_bytes() == (tmp_path / "whole").read_bytes()
