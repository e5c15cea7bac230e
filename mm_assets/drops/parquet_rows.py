"""Rows of a Parquet file as dicts, with bounded memory: a few kilobytes can decode into gigabytes of equal cells."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, cast

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mm_assets.drops.parquet_chunks import RowGroup, row_groups
from mm_assets.errors import DropError
from mm_assets.modalities.reasons import Refusal

MAX_BATCH_ROWS = 1024
#: Bytes of a batch, decoded; and of the rows that are Python objects at a time.
BATCH_BYTES = 32 << 20
SLICE_BYTES = 8 << 20
#: A column that repeats cells through a dictionary is read as numbers and one copy of each cell from this size on.
MAX_PLAIN_DICTIONARY_BYTES = BATCH_BYTES // MAX_BATCH_ROWS
#: Writers put about a thousand cells into a page, and a page is decoded as a whole: cells from this mean size on are
#: bounded by the bytes of their column in a row group.
LARGE_CELL_BYTES = 64 << 10
MAX_LARGE_CELLS_BYTES = 256 << 20
#: What the libraries raise for damaged files.
UNREADABLE = (pa.ArrowException, duckdb.Error, OSError, UnicodeDecodeError, IndexError)


@contextmanager
def open_parquet(path: Path, where: str) -> Generator[pq.ParquetFile]:
    """A file, opened so that its large repeated cells stay single, for the block that reads it.

    Raises:
        DropError: it is not a Parquet file, or a part of it that the block reads is damaged.
    """
    try:
        metadata = pq.read_metadata(path)
    except UNREADABLE as error:
        raise DropError(f"{where}: is not a Parquet file: {one_line(error)}. Write the index again.") from error
    try:
        dictionaries = _large_dictionaries(path, metadata.schema)
        with pq.ParquetFile(path, read_dictionary=dictionaries, metadata=metadata) as file:
            yield file
    except UNREADABLE as error:
        raise DropError(f"{where}: is damaged: {one_line(error)}. Write the index again.") from error


def one_line(error: Exception) -> str:
    """The library's sentence, which may have several lines."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def read_values(
    file: pq.ParquetFile, group: int, size: RowGroup, *, max_bytes: int, columns: list[str] | None = None
) -> Iterator[dict[str, Any] | Refusal]:
    """The rows of row group number ``group``, whose size is ``size``; a row of more than ``max_bytes`` is refused."""
    batches = file.iter_batches(
        batch_size=_batch_rows(size, file.schema), row_groups=[group], columns=columns, use_threads=False
    )
    for batch in batches:
        sizes = _row_sizes(batch)
        for first, last in _slices(sizes, max_bytes):
            if last - first == 1 and sizes[first] > max_bytes:
                yield Refusal("bad_row", f"row has {sizes[first]} bytes; {max_bytes} are allowed")
            else:
                yield from _as_values(batch.slice(first, last - first))


def _as_values(rows: pa.RecordBatch) -> Iterator[dict[str, Any] | Refusal]:
    """Rows as Python values; one that has a value which Python lacks is refused alone."""
    try:
        yield from cast("list[dict[str, Any]]", rows.to_pylist())
    except UnicodeDecodeError as error:
        if rows.num_rows == 1:
            yield Refusal("text_not_utf8", f"row is not UTF-8: byte {error.start} of a value")
            return
    except (ValueError, OverflowError, pa.ArrowException) as error:
        if rows.num_rows == 1:
            yield Refusal("bad_row", f"row has a value that cannot be read: {one_line(error)}")
            return
    else:
        return
    for row in range(rows.num_rows):
        yield from _as_values(rows.slice(row, 1))


def crowded_columns(path: Path, schema: pq.ParquetSchema) -> Iterator[tuple[int, str, str]]:
    """First row, largest column and what is wrong, of row groups whose large cells could only be read together."""
    first_row = 0
    for group in row_groups(path):
        large = [
            (chunk.unpacked_bytes, position)
            for position, chunk in enumerate(group.chunks)
            if chunk.unpacked_bytes > LARGE_CELL_BYTES * chunk.num_values
        ]
        num_bytes = sum(size for size, _ in large)
        if num_bytes > MAX_LARGE_CELLS_BYTES:
            detail = (
                f"has large cells, in a row group with {num_bytes} bytes of them; {MAX_LARGE_CELLS_BYTES} are allowed: "
                "write smaller row groups"
            )
            yield first_row, schema.column(max(large)[1]).path, detail
        first_row += group.num_rows


def null_rows(file: pq.ParquetFile, column: str) -> Iterator[int]:
    """Numbers of the rows that have no value in ``column``."""
    first = 0
    for batch in file.iter_batches(batch_size=MAX_BATCH_ROWS, columns=[column], use_threads=False):
        yield from (first + row for row, is_null in enumerate(batch.column(0).is_null().to_pylist()) if is_null)
        first += batch.num_rows


def is_text(kind: pa.DataType) -> bool:
    """Whether its values are strings, or all null."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or kind == pa.null()
    )


def nesting(kind: pa.DataType) -> int:
    """How deep a type is nested; a plain one 1."""
    if not pa.types.is_nested(kind):
        return 1
    return 1 + max((nesting(kind.field(number).type) for number in range(kind.num_fields)), default=0)


def _large_dictionaries(path: Path, schema: pq.ParquetSchema) -> list[str]:
    found: set[str] = set()
    for group in row_groups(path):
        for position, chunk in enumerate(group.chunks):
            leaf = schema.column(position)
            is_flat = leaf.max_repetition_level == 0 and leaf.path == leaf.name
            if is_flat and leaf.physical_type == "BYTE_ARRAY" and chunk.worst_cell_bytes > MAX_PLAIN_DICTIONARY_BYTES:
                found.add(leaf.path)
    return sorted(found)


def _batch_rows(group: RowGroup, schema: pq.ParquetSchema) -> int:
    mean = -(-group.num_bytes // max(group.num_rows, 1))
    rows = max(1, min(MAX_BATCH_ROWS, BATCH_BYTES // max(mean, 1)))
    for position, chunk in enumerate(group.chunks):
        is_nested = "." in schema.column(position).path
        if is_nested and chunk.has_dictionary and rows * chunk.worst_cell_bytes > BATCH_BYTES:
            rows = min(rows, max(1, BATCH_BYTES // chunk.worst_cell_bytes))
    return rows


def _row_sizes(batch: pa.RecordBatch) -> list[int]:
    """About how many bytes each row has."""
    shared, sizes = 0, [0] * batch.num_rows
    for column in batch.columns:
        kind = column.type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            lengths = pa.array(_list_lengths(column), pa.int64())
        elif pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _has_length(kind.field("bytes").type):
            lengths = _lengths(column.field("bytes"))
        elif pa.types.is_dictionary(kind):
            lengths = _lengths(column.dictionary).take(column.indices)
        elif _has_length(kind):
            lengths = _lengths(column)
        else:
            shared += -(-column.nbytes // max(batch.num_rows, 1))
            continue
        sizes = [size + (length or 0) for size, length in zip(sizes, lengths.to_pylist(), strict=True)]
    return [size + shared for size in sizes]


def _has_length(kind: pa.DataType) -> bool:
    return is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _lengths(values: pa.Array) -> pa.Array:
    if values.type == pa.null():
        return pa.nulls(len(values), pa.int64())
    return pc.binary_length(values)  # pyright: ignore[reportAttributeAccessIssue]


def _list_lengths(column: pa.Array) -> list[int]:
    """By row the bytes of the strings and bytes in its list, or in the structs of its list."""
    counts = cast("list[int]", pc.list_value_length(column).fill_null(0).to_pylist())  # pyright: ignore[reportAttributeAccessIssue]
    bounds = list(accumulate(counts, initial=0))
    totals = list(accumulate(_item_lengths(column.flatten()), initial=0))
    return [totals[last] - totals[first] for first, last in pairwise(bounds)]


def _item_lengths(items: pa.Array) -> list[int]:
    """By item the bytes of the strings and bytes in it; anything else counts as eight bytes."""
    kind = items.type
    if pa.types.is_struct(kind) and kind.num_fields:
        fields = [_item_lengths(items.field(number)) for number in range(kind.num_fields)]
        return [sum(lengths) for lengths in zip(*fields, strict=True)]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _list_lengths(items)
    if not _has_length(kind):
        return [8] * len(items)
    return cast("list[int]", _lengths(items).fill_null(0).to_pylist())


def _slices(sizes: list[int], max_bytes: int) -> Iterator[tuple[int, int]]:
    """Neighbouring rows of ``SLICE_BYTES`` together; a row that is too large comes by itself."""
    first, held = 0, 0
    for row, size in enumerate(sizes):
        if first < row and (size > max_bytes or held + size > SLICE_BYTES):
            yield first, row
            first, held = row, 0
        held += size
        if size > max_bytes:
            yield row, row + 1
            first, held = row + 1, 0
    if first < len(sizes):
        yield first, len(sizes)
