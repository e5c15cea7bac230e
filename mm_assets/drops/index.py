"""Reads the index of a drop (JSON lines, CSV, TSV or Parquet), one row per sample, streamed.

Known columns are ``fields.KNOWN_COLUMNS``, under the names that the drop records (``columns``); further ones are
metadata. A known column that is misspelt or wrongly typed makes the whole index unusable (``DropError``); a row that
cannot be read is that row's problem alone. Which part of an index a shard reads is said by its ``layout``.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm_assets.drops.columns import NO_COLUMNS, Columns, Seen, apply_columns
from mm_assets.drops.csv_rows import DELIMITERS, read_header, read_records
from mm_assets.drops.fields import (
    KNOWN_COLUMNS,
    NUMBERED_COLUMNS,
    as_text,
    expected_type,
    misspelt,
    parse_object,
    repeated_names,
    wrongly_typed,
)
from mm_assets.drops.parquet_chunks import row_groups
from mm_assets.drops.parquet_index import find_parquet_problems, read_group, see_parquet
from mm_assets.drops.parquet_rows import open_parquet
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


def read_index(
    path: Path, where: str, columns: Columns = NO_COLUMNS, *, only: Sequence[str] | None = None
) -> Iterator[Row]:
    """All rows in order.

    Args:
        path: The index.
        where: What errors call it.
        columns: The names its columns have.
        only: Columns of samples that are needed; of a Parquet file no others are read, and of media that it holds
            itself none.

    Raises:
        DropError: the index is unusable; the message names ``where``, the line and the column.
    """
    problems = find_column_problems(path, where, columns, limit=1)
    if problems:
        first = problems[0]
        raise DropError(f"{where}: line {first.line}: column {first.column}: {first.detail}. Correct the index.")
    return _rows(path, where, columns, only)


def see_index(path: Path, where: str) -> Seen:
    """What columns the index has, whatever they are called.

    Raises:
        DropError: it cannot be read.
    """
    if path.suffix == ".parquet":
        return see_parquet(path, where)
    seen = Seen()
    for _, _, values in _line_values(path, where, whole(path, where)):
        if not isinstance(values, Refusal):
            seen.add_row(values)
    return seen


def find_column_problems(path: Path, where: str, columns: Columns = NO_COLUMNS, *, limit: int) -> list[IndexProblem]:
    """At most ``limit`` columns that are misspelt, missing or wrongly typed."""
    found: list[IndexProblem] = []
    if path.suffix == ".parquet":
        problems = (IndexProblem(*problem) for problem in find_parquet_problems(path, where, columns))
    else:
        problems = _line_problems(path, where, columns)
    for problem in problems:
        found.append(problem)
        if len(found) == limit:
            break
    return found


def read_part(path: Path, where: str, part: Part, columns: Columns = NO_COLUMNS) -> Iterator[Row]:
    """The rows of one part of an index whose columns are known to be usable.

    Raises:
        DropError: it cannot be read.
    """
    return _part_rows(path, where, part, columns, None)


def whole(path: Path, where: str) -> Part:
    """All lines of an index that hold rows, as one part."""
    size_bytes = path.stat().st_size
    if path.suffix in DELIMITERS:
        _, offset, line = read_header(path, where)
        return Part(offset=offset, size_bytes=size_bytes - offset, first_row=0, first_line=line)
    return Part(offset=0, size_bytes=size_bytes, first_row=0, first_line=1)


def parquet_parts(path: Path, where: str) -> list[Part]:
    """The row groups of a Parquet file, in order."""
    parts: list[Part] = []
    first_row, size_bytes = 0, path.stat().st_size
    with open_parquet(path, where):
        for number, group in enumerate(row_groups(path)):
            start, end = group.byte_range
            if not 0 <= start <= end <= size_bytes:
                raise DropError(f"{where}: is damaged: row group {number} lies outside of it. Write the index again.")
            parts.append(
                Part(offset=start, size_bytes=end - start, first_row=first_row, first_line=first_row + 1, group=number)
            )
            first_row += group.num_rows
    return parts


def line_places(path: Path, where: str) -> Iterator[tuple[int, int]]:
    """Offset and line of every row of an index that is no Parquet file."""
    part = whole(path, where)
    if path.suffix in DELIMITERS:
        for offset, line, _, _ in _csv_records(path, where, part):
            yield offset, line
    else:
        for offset, line, _ in _jsonl_lines(path, part):
            yield offset, line


def _rows(path: Path, where: str, columns: Columns, only: Sequence[str] | None) -> Iterator[Row]:
    parts = parquet_parts(path, where) if path.suffix == ".parquet" else [whole(path, where)]
    for part in parts:
        yield from _part_rows(path, where, part, columns, only)


def _part_rows(path: Path, where: str, part: Part, columns: Columns, only: Sequence[str] | None) -> Iterator[Row]:
    if path.suffix == ".parquet":
        groups = read_group(path, where, part.group, columns, max_row_bytes=MAX_ROW_BYTES, only=only)
        values = ((number, number + 1, found) for number, found in enumerate(groups, part.first_row))
    else:
        values = _line_values(path, where, part)
    for number, line, found in values:
        yield Row(number, line, found if isinstance(found, Refusal) else _named(found, columns, number))


def _named(values: dict[str, Any], columns: Columns, number: int) -> dict[str, Any]:
    made = apply_columns(values, columns, number)
    return made | as_text(made, NUMBERED_COLUMNS)


# Lines.


def _line_values(path: Path, where: str, part: Part) -> Iterator[tuple[int, int, dict[str, Any] | Refusal]]:
    """Number, line and values of every row of some lines."""
    if path.suffix in DELIMITERS:
        names, _, _ = read_header(path, where)
        for number, (_, line, _, fields) in enumerate(_csv_records(path, where, part), part.first_row):
            yield number, line, _columns_of(names, fields)
        return
    too_long = Refusal("bad_row", f"row has more than {MAX_ROW_BYTES} bytes")
    for number, (_, line, data) in enumerate(_jsonl_lines(path, part), part.first_row):
        yield number, line, too_long if data is None else _parse_line(data)


def _csv_records(path: Path, where: str, part: Part) -> Iterator[tuple[int, int, int, list[str] | Refusal]]:
    end = part.offset + part.size_bytes
    return read_records(path, where, offset=part.offset, end=end, line=part.first_line, max_bytes=MAX_ROW_BYTES)


def _columns_of(names: list[str], fields: list[str] | Refusal) -> dict[str, Any] | Refusal:
    if isinstance(fields, Refusal):
        return fields
    if len(fields) != len(names):
        return Refusal("bad_row", f"row has {len(fields)} fields; the first row names {len(names)} columns")
    return dict(zip(names, fields, strict=True))


def _jsonl_lines(path: Path, part: Part) -> Iterator[tuple[int, int, bytes | None]]:
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


def _parse_line(data: bytes) -> dict[str, Any] | Refusal:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return Refusal("text_not_utf8", f"row is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}")
    return parse_object(data, "row", "bad_row")


def _line_problems(path: Path, where: str, columns: Columns) -> Iterator[IndexProblem]:
    if path.suffix in DELIMITERS:
        names, _, _ = read_header(path, where)
        for name in repeated_names(names):
            yield IndexProblem(1, name, "is given twice; one column of a name is expected")
    yield from _value_problems(path, where, columns)


def _value_problems(path: Path, where: str, columns: Columns) -> Iterator[IndexProblem]:
    # A name that occurs beside the known one in some row is a column of its own ("label" and "labels"); where the
    # known one is missing it is a mistake for it.
    suspects: dict[tuple[str, str], int] = {}
    cleared: set[tuple[str, str]] = set()
    for row in _rows(path, where, columns, None):
        values = row.columns
        if isinstance(values, Refusal):
            continue
        if values.get("id") is None:
            yield IndexProblem(row.line, "id", "is missing")
        wrong = wrongly_typed(values, KNOWN_COLUMNS)
        if wrong:
            yield IndexProblem(row.line, wrong[0], f"{wrong[1]}; {expected_type(wrong[0])} is expected")
        for name in values:
            meant = meant_column(name)
            if meant and meant in values:
                cleared.add((name, meant))
            elif meant:
                suspects.setdefault((name, meant), row.line)
    for (name, meant), line in suspects.items():
        if (name, meant) not in cleared:
            yield IndexProblem(line, name, f"looks like a mistake for {meant}")


@functools.lru_cache(maxsize=4096)
def meant_column(name: str) -> str | None:
    """The known column that ``name`` looks like a mistake for, if any."""
    return misspelt(name, KNOWN_COLUMNS)
