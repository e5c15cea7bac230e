"""Reads the index of a drop: ``index.jsonl`` or ``index.parquet``, one row per sample, streamed.

Known columns are ``fields.KNOWN_COLUMNS``; further ones are metadata. A known column that is misspelt or wrongly
typed makes the whole index unusable (``DropError``); a row that cannot be read is that row's problem alone. Which part
of an index a shard reads is said by its ``layout``.
"""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm_assets.drops.fields import KNOWN_COLUMNS, misspelt, parse_object, wrongly_typed
from mm_assets.drops.limits import MAX_METADATA_DEPTH
from mm_assets.drops.parquet_rows import (
    byte_range,
    crowded_columns,
    is_text,
    nesting,
    null_rows,
    open_parquet,
    read_values,
)
from mm_assets.errors import DropError
from mm_assets.modalities.reasons import Refusal

MAX_ROW_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its position among the rows, its line in the file (for Parquet: row, from 1) and its columns."""

    number: int
    line: int
    columns: dict[str, Any] | Refusal


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A piece of an index that can be read by itself: whole lines, or one row group of Parquet.

    Attributes:
        offset: Of its first byte.
        size_bytes: Of its bytes.
        first_row: Number of its first row among all rows.
        first_line: Line that ``offset`` begins; of Parquet, rows counted from 1.
        group: Number of the row group.
    """

    offset: int
    size_bytes: int
    first_row: int
    first_line: int
    group: int = 0


@dataclass(frozen=True, slots=True)
class IndexProblem:
    """Something about the columns that makes the index unusable."""

    line: int
    column: str
    detail: str


def read_index(path: Path, where: str) -> Iterator[Row]:
    """All rows in order.

    Raises:
        DropError: the index is unusable; the message names ``where``, the line and the column.
    """
    problems = find_column_problems(path, where, limit=1)
    if problems:
        first = problems[0]
        raise DropError(f"{where}: line {first.line}: column {first.column}: {first.detail}. Correct the index.")
    return _rows(path, where)


def find_column_problems(path: Path, where: str, *, limit: int) -> list[IndexProblem]:
    """At most ``limit`` columns that are misspelt, missing or wrongly typed."""
    find = _parquet_problems if path.suffix == ".parquet" else _jsonl_problems
    found: list[IndexProblem] = []
    for problem in find(path, where):
        found.append(problem)
        if len(found) == limit:
            break
    return found


def read_part(path: Path, where: str, part: Part) -> Iterator[Row]:
    """The rows of one part of an index whose columns are known to be usable.

    Raises:
        DropError: it is not a Parquet file.
    """
    return _parquet_rows(path, where, part) if path.suffix == ".parquet" else _jsonl_rows(path, part)


def _rows(path: Path, where: str) -> Iterator[Row]:
    if path.suffix == ".parquet":
        parts = parquet_parts(path, where)
        return itertools.chain.from_iterable(_parquet_rows(path, where, part) for part in parts)
    return _jsonl_rows(path, whole(path))


def whole(path: Path) -> Part:
    """All lines of an index as one part."""
    return Part(offset=0, size_bytes=path.stat().st_size, first_row=0, first_line=1)


def parquet_parts(path: Path, where: str) -> list[Part]:
    """The row groups of a Parquet file, in order."""
    parts: list[Part] = []
    first_row = 0
    with open_parquet(path, where) as file:
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            start, end = byte_range(group)
            parts.append(
                Part(offset=start, size_bytes=end - start, first_row=first_row, first_line=first_row + 1, group=number)
            )
            first_row += group.num_rows
    return parts


# JSON lines.


def jsonl_lines(path: Path, part: Part) -> Iterator[tuple[int, int, bytes | None]]:
    """Offset, line number and bytes of every line that holds a row; None for one that is too long."""
    line = part.first_line - 1
    offset, end = part.offset, part.offset + part.size_bytes
    with path.open("rb") as file:
        file.seek(offset)
        while offset < end and (data := file.readline(MAX_ROW_BYTES + 1)):
            line += 1
            begin, is_too_long = offset, len(data) > MAX_ROW_BYTES
            offset += len(data)
            while is_too_long and not data.endswith(b"\n") and (data := file.readline(MAX_ROW_BYTES)):
                offset += len(data)
            if is_too_long or data.strip():
                yield begin, line, None if is_too_long else data


def _jsonl_rows(path: Path, part: Part) -> Iterator[Row]:
    too_long = Refusal("bad_row", f"row has more than {MAX_ROW_BYTES} bytes")
    for number, (_, line, data) in enumerate(jsonl_lines(path, part), part.first_row):
        yield Row(number, line, too_long if data is None else _parse_line(data))


def _parse_line(data: bytes) -> dict[str, Any] | Refusal:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return Refusal("text_not_utf8", f"row is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}")
    return parse_object(data, "row", "bad_row")


def _jsonl_problems(path: Path, where: str) -> Iterator[IndexProblem]:
    # A name that occurs beside the known one in some row is a column of its own ("label" and "labels"); where the
    # known one is missing it is a mistake for it.
    suspects: dict[tuple[str, str], int] = {}
    cleared: set[tuple[str, str]] = set()
    for row in _rows(path, where):
        columns = row.columns
        if isinstance(columns, Refusal):
            continue
        if columns.get("id") is None:
            yield IndexProblem(row.line, "id", "is missing")
        wrong = wrongly_typed(columns, KNOWN_COLUMNS)
        if wrong:
            yield IndexProblem(row.line, wrong[0], f"is a {wrong[1]}; a string or null is expected")
        for name in columns:
            meant = _meant(name)
            if meant and meant in columns:
                cleared.add((name, meant))
            elif meant:
                suspects.setdefault((name, meant), row.line)
    for (name, meant), line in suspects.items():
        if (name, meant) not in cleared:
            yield IndexProblem(line, name, f"looks like a mistake for {meant}")


@functools.cache
def _meant(name: str) -> str | None:
    return misspelt(name, KNOWN_COLUMNS)


# Parquet.


def _parquet_rows(path: Path, where: str, part: Part) -> Iterator[Row]:
    with open_parquet(path, where) as file:
        for number, values in enumerate(read_values(file, part.group, max_bytes=MAX_ROW_BYTES), part.first_row):
            yield Row(number, number + 1, values)


def _parquet_problems(path: Path, where: str) -> Iterator[IndexProblem]:
    with open_parquet(path, where) as file:
        schema = file.schema_arrow
        repeated = sorted({name for name in schema.names if schema.names.count(name) > 1})
        if repeated:
            yield from (IndexProblem(1, name, "is given twice; one column of a name is expected") for name in repeated)
            return
        for name in schema.names:
            meant = _meant(name)
            if meant and meant not in schema.names:
                yield IndexProblem(1, name, f"looks like a mistake for {meant}")
            if nesting(schema.field(name).type) > MAX_METADATA_DEPTH:
                yield IndexProblem(1, name, f"is nested deeper than {MAX_METADATA_DEPTH} levels")
        for name in KNOWN_COLUMNS:
            if name in schema.names and not is_text(schema.field(name).type):
                yield IndexProblem(1, name, f"is a {schema.field(name).type}; a string or null is expected")
        if "id" not in schema.names:
            yield IndexProblem(1, "id", "is missing")
            return
        crowded = list(crowded_columns(file.metadata))
        yield from (IndexProblem(row + 1, name, detail) for row, name, detail in crowded)
        if not crowded:
            yield from (IndexProblem(row + 1, "id", "is missing") for row in null_rows(file, "id"))
