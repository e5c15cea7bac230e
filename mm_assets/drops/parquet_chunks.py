"""What the footer of a Parquet file says about the sizes of its parts, read by DuckDB.

pyarrow ends the whole process where such a statement of a damaged file contradicts itself; what it reads rows with
raises.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import duckdb

_QUERY = """
    SELECT row_group_id, row_group_num_rows, row_group_bytes, encodings, num_values, total_uncompressed_size,
      total_compressed_size, data_page_offset, dictionary_page_offset
    FROM parquet_metadata(?) ORDER BY row_group_id, column_id
"""
DICTIONARIES = frozenset({"PLAIN_DICTIONARY", "RLE_DICTIONARY"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """The cells of one leaf column in one row group.

    ``first`` is the place of its first byte; ``packed_bytes`` are those in the file.
    """

    num_values: int
    unpacked_bytes: int
    packed_bytes: int
    first: int
    has_dictionary: bool

    @property
    def worst_cell_bytes(self) -> int:
        """What one cell may have: of a column with a dictionary up to all of it, else about the mean."""
        if self.has_dictionary:
            return self.unpacked_bytes
        return -(-self.unpacked_bytes // max(self.num_values, 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class RowGroup:
    """One row group; its chunks are in the order of the leaf columns."""

    num_rows: int
    num_bytes: int
    chunks: tuple[Chunk, ...]

    @property
    def byte_range(self) -> tuple[int, int]:
        """Its first byte, and the one behind it."""
        first = min((chunk.first for chunk in self.chunks), default=0)
        return first, max((chunk.first + chunk.packed_bytes for chunk in self.chunks), default=0)


def row_groups(path: Path) -> tuple[RowGroup, ...]:
    """The row groups of a file, in order.

    Raises:
        duckdb.Error: the footer cannot be read.
    """
    status = path.stat()
    return _row_groups(str(path), status.st_ino, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _row_groups(path: str, *_: int) -> tuple[RowGroup, ...]:
    """Every part of an index is opened by itself, and the footer is the same; ``_`` tells a file from its successor."""
    try:
        with _database().cursor() as cursor:
            rows = cursor.execute(_QUERY, [path]).fetchall()
    except (duckdb.FatalException, duckdb.InternalException):
        # After these a database answers nothing more.
        _database.cache_clear()
        raise
    chunks: dict[int, list[Chunk]] = {}
    sizes: dict[int, tuple[int, int]] = {}
    for number, num_rows, num_bytes, *values in rows:
        sizes[number] = num_rows, num_bytes
        chunks.setdefault(number, []).append(_chunk(*values))
    return tuple(RowGroup(num_rows=sizes[n][0], num_bytes=sizes[n][1], chunks=tuple(chunks[n])) for n in chunks)


def _chunk(encodings: str, num_values: int, unpacked: int, packed: int, page: int, dictionary: int | None) -> Chunk:
    return Chunk(
        num_values=num_values,
        unpacked_bytes=unpacked,
        packed_bytes=packed,
        first=min(dictionary or page, page),
        has_dictionary=not DICTIONARIES.isdisjoint(encodings.split(", ")),
    )


@functools.cache
def _database() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})
