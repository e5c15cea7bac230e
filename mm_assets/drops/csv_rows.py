"""Rows of ``.csv`` and ``.tsv`` files, streamed, with the place of each.

The first row names the columns. In CSV a field may be quoted and then hold line breaks (RFC 4180); in TSV quotes are
text, as Common Voice and others write them. Every value is a string.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mm_assets.errors import DropError
from mm_assets.modalities.reasons import Refusal

DELIMITERS = {".csv": ",", ".tsv": "\t"}

#: Offset and line of a row's first byte, the offset behind it, and its fields.
Record = tuple[int, int, int, "list[str] | Refusal"]


def read_header(path: Path, where: str) -> tuple[list[str], int, int]:
    """Names of the columns, the offset behind them, and the line there.

    Raises:
        DropError: the file has no such row, or it cannot be read.
    """
    size_bytes = path.stat().st_size
    lines = _Lines(path.open("rb"), where, 0, size_bytes, 1)
    for _, _, end, names in _records(lines, DELIMITERS[path.suffix]):
        if isinstance(names, Refusal):
            raise DropError(f"{where}: line 1: names of columns: {names.detail}. Write the index again.")
        return [names[0].removeprefix("\ufeff"), *names[1:]], end, lines.line
    raise DropError(f"{where}: is empty: expected a first row with the names of columns. Write the index again.")


def read_records(path: Path, where: str, *, offset: int, end: int, line: int, max_bytes: int) -> Iterator[Record]:
    """The rows from ``offset`` to ``end``; ``line`` is the number of the first line there.

    Raises:
        DropError: a row has more than ``max_bytes``, or its quotes are not closed.
    """
    return _records(_Lines(path.open("rb"), where, offset, end, line, max_bytes), DELIMITERS[path.suffix])


class _Lines:
    """Lines of a file as a reader of CSV takes them, which knows where it is."""

    def __init__(self, file: IO[bytes], where: str, offset: int, end: int, line: int, max_bytes: int = 1 << 20) -> None:
        self._file, self._end, self._max_bytes = file, end, max_bytes
        self.where = where
        self.offset, self.line = offset, line
        self.begin, self.begin_line = offset, line
        self.broken: str | None = None
        file.seek(offset)

    def begin_record(self) -> None:
        """What comes next is a new row."""
        self.begin, self.begin_line, self.broken = self.offset, self.line, None

    def close(self) -> None:
        self._file.close()

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        left = min(self._end - self.offset, self._max_bytes - (self.offset - self.begin) + 1)
        data = self._file.readline(left) if self._end > self.offset else b""
        if not data:
            raise StopIteration
        self.offset += len(data)
        self.line += 1
        if self.offset - self.begin > self._max_bytes:
            raise self.unclosed(f"has more than {self._max_bytes} bytes")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            self.broken = f"row is not UTF-8: byte {error.start} of line {self.line - 1} is 0x{data[error.start]:02x}"
            return data.decode("utf-8", "replace")

    def unclosed(self, detail: str) -> DropError:
        return DropError(
            f"{self.where}: line {self.begin_line}: the row that begins there {detail}: is a quote not closed? "
            "Correct the index."
        )


def _records(lines: _Lines, delimiter: str) -> Iterator[Record]:
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    # The default, 128 kB, is less than a text may have; `_Lines` bounds whole rows.
    csv.field_size_limit(1 << 30)
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    try:
        while True:
            lines.begin_record()
            fields: list[str] | Refusal
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end of data" in str(error):
                    raise lines.unclosed("does not end") from error
                fields = Refusal("bad_row", f"row is not valid: {error}")
            if lines.broken is not None:
                fields = Refusal("text_not_utf8", lines.broken)
            if fields:
                yield lines.begin, lines.begin_line, lines.offset, fields
    finally:
        lines.close()
