"""Parquet and Arrow files whose bytes depend on their rows alone."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mm_assets.errors import StageError

ROW_GROUP_ROWS = 65_536
BATCH_ROWS = 256
PARQUET_TYPE = "application/vnd.apache.parquet"
ARROW_TYPE = "application/vnd.apache.arrow.file"
TAR_TYPE = "application/x-tar"
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
