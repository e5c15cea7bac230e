"""Sorts records that do not fit into memory: sorted pieces on disk, merged when they are read.

A record is a list of JSON values; its first ``num_keys`` values decide the order, and records with equal ones keep the
order they came in. Memory holds about ``BUFFER_BYTES`` of records, whatever their number.
"""

import heapq
import json
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

BUFFER_BYTES = 48 << 20
#: What a record costs in memory beside its text: a key, its values and two lists' entries.
RECORD_BYTES = 400
READ_BYTES = 1 << 18

Entry = tuple[tuple[Any, ...], bytes]


class DiskSort:
    """Takes records in any order and gives them back in theirs, once or several times.

    Args:
        folder: An existing folder for ``<name>.<number>`` files; they stay until it is removed.
        name: Of the files.
        num_keys: How many leading values decide the order; they must compare with each other.
        buffer_bytes: How much of the records is kept in memory.
    """

    def __init__(self, folder: Path, name: str, *, num_keys: int, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._folder = folder
        self._name = name
        self._num_keys = num_keys
        self._buffer_bytes = buffer_bytes
        self._entries: list[Entry] = []
        self._held_bytes = 0
        self._files: list[Path] = []

    def append(self, *record: Any) -> None:
        """Adds one record."""
        line = json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode("ascii")
        self._entries.append((record[: self._num_keys], line))
        self._held_bytes += len(line) + RECORD_BYTES
        if self._held_bytes >= self._buffer_bytes:
            self._spill()

    def __iter__(self) -> Iterator[list[Any]]:
        """All records in order."""
        self._entries.sort(key=itemgetter(0))
        if not self._files:
            yield from (json.loads(line) for _, line in self._entries)
            return
        self._spill()
        parts = [self._read(path) for path in self._files]
        yield from (record for _, record in heapq.merge(*parts, key=itemgetter(0)))

    def _spill(self) -> None:
        if not self._entries:
            return
        self._entries.sort(key=itemgetter(0))
        path = self._folder / f"{self._name}.{len(self._files)}"
        with path.open("wb") as file:
            _write_lines(file, (line for _, line in self._entries))
        self._files.append(path)
        self._entries, self._held_bytes = [], 0

    def _read(self, path: Path) -> Iterator[tuple[tuple[Any, ...], list[Any]]]:
        with path.open("rb", buffering=READ_BYTES) as file:
            for line in file:
                record = json.loads(line)
                yield tuple(record[: self._num_keys]), record


def _write_lines(file: IO[bytes], lines: Iterable[bytes]) -> None:
    for line in lines:
        file.write(line)
        file.write(b"\n")
