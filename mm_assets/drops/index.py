"""Reads the index of a drop: ``index.jsonl`` or ``index.parquet``, one row per sample, streamed.

Known columns are ``fields.KNOWN_COLUMNS``; further ones are metadata. A known column that is misspelt or wrongly
typed makes the whole index unusable (``DropError``); a row that cannot be read is that row's problem alone.
"""

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from mm_assets.drops.fields import KNOWN_COLUMNS, misspelt, wrongly_typed
from mm_assets.errors import DropError
from mm_assets.modalities.reasons import Refusal

BATCH_ROWS = 1024
MAX_LINE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its position among the rows, its line in the file (for Parquet: row, from 1) and its columns."""

    number: int
    line: int
    columns: dict[str, Any] | Refusal


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


def _rows(path: Path, where: str) -> Iterator[Row]:
    return _parquet_rows(path, where) if path.suffix == ".parquet" else _jsonl_rows(path)


# JSON lines.


def _jsonl_rows(path: Path) -> Iterator[Row]:
    number = line = 0
    with path.open("rb") as file:
        while data := file.readline(MAX_LINE_BYTES + 1):
            line += 1
            is_too_long = len(data) > MAX_LINE_BYTES
            while is_too_long and not data.endswith(b"\n") and (data := file.readline(MAX_LINE_BYTES)):
                pass
            if is_too_long or data.strip():
                limit = Refusal("bad_row", f"row has more than {MAX_LINE_BYTES} bytes")
                yield Row(number, line, limit if is_too_long else _parse_line(data))
                number += 1


def _parse_line(data: bytes) -> dict[str, Any] | Refusal:
    try:
        values = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Refusal("text_not_utf8", f"row is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}")
    except (ValueError, RecursionError) as error:
        return Refusal("bad_row", f"row is not valid JSON: {error}")
    if not isinstance(values, dict):
        return Refusal("bad_row", f"row is a {type(values).__name__}; an object is expected")
    return cast("dict[str, Any]", values)


def _jsonl_problems(path: Path, where: str) -> Iterator[IndexProblem]:
    # A name that occurs beside the known one in some row is a column of its own ("label" and "labels"); where the
    # known one is missing it is a mistake for it.
    suspects: dict[tuple[str, str], int] = {}
    cleared: set[tuple[str, str]] = set()
    for row in _jsonl_rows(path):
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


def _open_parquet(path: Path, where: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DropError(f"{where}: is not a Parquet file: {error}. Write the index again.") from error


def _parquet_rows(path: Path, where: str) -> Iterator[Row]:
    number = 0
    for batch in _open_parquet(path, where).iter_batches(batch_size=BATCH_ROWS, use_threads=False):
        for values in batch.to_pylist():
            yield Row(number, number + 1, values)
            number += 1


def _parquet_problems(path: Path, where: str) -> Iterator[IndexProblem]:
    with _open_parquet(path, where) as file:
        schema = file.schema_arrow
        for name in schema.names:
            meant = _meant(name)
            if meant and meant not in schema.names:
                yield IndexProblem(1, name, f"looks like a mistake for {meant}")
        for name in KNOWN_COLUMNS:
            if name in schema.names and not _is_text(schema.field(name).type):
                yield IndexProblem(1, name, f"is a {schema.field(name).type}; a string or null is expected")
        if "id" not in schema.names:
            yield IndexProblem(1, "id", "is missing")
            return
        first = 1
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=["id"], use_threads=False):
            for position, is_null in enumerate(batch.column(0).is_null().to_pylist()):
                if is_null:
                    yield IndexProblem(first + position, "id", "is missing")
            first += batch.num_rows


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or kind == pa.null()
    )
