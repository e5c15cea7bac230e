"""Parquet and Arrow files whose bytes depend on their rows alone."""

from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mm_assets.errors import StageError

ROW_GROUP_ROWS = 65_536
ROW_GROUP_BYTES = 32 << 20
#: Rows that are Python objects at a time; those of a row group before them are columns already.
PENDING_ROWS = 2048
#: What these may be said to weigh.
PENDING_BYTES = 4 << 20
BATCH_ROWS = 256
PARQUET_TYPE = "application/vnd.apache.parquet"
ARROW_TYPE = "application/vnd.apache.arrow.file"
TAR_TYPE = "application/x-tar"
#: An array of numpy, format 1.0.
ARRAY_TYPE = "application/x-npy"
JSON_TYPE = "application/json"
MARKDOWN_TYPE = "text/markdown"
SAFETENSORS_TYPE = "application/vnd.safetensors"


def table_of(rows: list[dict[str, object]], schema: pa.Schema) -> pa.Table:
    """A table of ``schema`` from dicts; also for no rows at all.

    Raises:
        StageError: a row does not fit the schema.
    """
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise StageError(f"table: a row does not fit its schema: {error}.") from error


def write_parquet(table: pa.Table, path: Path) -> Path:
    """Writes ``table`` with fixed options (zstd, fixed row groups, no pandas metadata) and returns ``path``."""
    pq.write_table(table, path, compression="zstd", compression_level=3, row_group_size=ROW_GROUP_ROWS, version="2.6")
    return path


def write_batches(reader: pa.RecordBatchReader, schema: pa.Schema, path: Path) -> int:
    """Writes batches as ``write_parquet`` writes a table of them, one row group in memory; returns the rows' number."""
    num_rows, pending = 0, schema.empty_table()
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=3, version="2.6") as writer:
        for batch in reader:
            num_rows += batch.num_rows
            pending = pa.concat_tables([pending, pa.Table.from_batches([batch]).cast(schema)])
            while pending.num_rows >= ROW_GROUP_ROWS:
                writer.write_table(pending.slice(0, ROW_GROUP_ROWS).combine_chunks(), row_group_size=ROW_GROUP_ROWS)
                pending = pending.slice(ROW_GROUP_ROWS)
        if pending.num_rows or not num_rows:
            writer.write_table(pending.combine_chunks(), row_group_size=ROW_GROUP_ROWS)
    return num_rows


class RowsWriter(AbstractContextManager["RowsWriter"]):
    """Writes rows one by one, as ``write_parquet`` writes a table of them, with one row group in memory.

    A row group ends after ``ROW_GROUP_ROWS`` rows, or after ``row_group_bytes`` of what the rows are said to weigh.
    """

    def __init__(self, path: Path, schema: pa.Schema, *, row_group_bytes: int = ROW_GROUP_BYTES) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", compression_level=3, version="2.6")
        self._row_group_bytes = row_group_bytes
        self._rows: list[dict[str, object]] = []
        self._tables: list[pa.Table] = []
        self._group_rows = self._group_bytes = self._pending_bytes = 0
        self.num_rows = 0

    def append(self, row: dict[str, object], *, size_bytes: int = 0) -> None:
        """Adds one row that weighs ``size_bytes``."""
        self._rows.append(row)
        self.num_rows += 1
        self._group_rows += 1
        self._group_bytes += size_bytes
        self._pending_bytes += size_bytes
        if self._group_rows == ROW_GROUP_ROWS or self._group_bytes >= self._row_group_bytes:
            self._end_group()
        elif len(self._rows) == PENDING_ROWS or self._pending_bytes >= PENDING_BYTES:
            self._pack()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and (self._group_rows or not self.num_rows):
            self._end_group()
        self._writer.close()

    def _pack(self) -> None:
        self._tables.append(table_of(self._rows, self._schema))
        self._rows, self._pending_bytes = [], 0

    def _end_group(self) -> None:
        self._pack()
        table = pa.concat_tables(self._tables).combine_chunks()
        self._writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        self._tables, self._group_rows, self._group_bytes = [], 0, 0


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Reads a whole Parquet file, or only some columns, in file order."""
    return pq.read_table(path, columns=columns, use_threads=False)


def write_arrow(table: pa.Table, path: Path, *, batch_rows: int = BATCH_ROWS) -> Path:
    """Writes ``table`` as an uncompressed Arrow IPC file in batches of ``batch_rows``, so that it can be mapped."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=batch_rows)
    return path


def map_arrow(path: Path) -> pa.Table:
    """An Arrow IPC file as a table backed by the mapped file, without copying it."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
