"""What the readers of drops produce: samples, rejections, and the disk file their bytes wait in."""

import hashlib
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from mm_assets.drops.record import Drop, DropObject
from mm_assets.errors import IdentityError, MmError, ObjectCorruptError
from mm_assets.identity.canonical import CHUNK_BYTES, Json, canonical_json
from mm_assets.store.client import translated

#: Columns about a sample rather than of it; they are strings or null.
LABEL_COLUMNS = ("label", "language", "group")
#: Start and end of a range of time, microseconds; None where the blob begins or ends.
TimeRange = tuple[int | None, int | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Blob:
    """The bytes of one modality, or of one part: where they lie in the spool, and what they are."""

    modality: str
    offset: int
    size_bytes: int
    digest: str
    format: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One raw sample that passed every structural check.

    ``object`` is the key within the drop it came from; ``parts`` are its blobs in reading order; ``time_range`` is the
    range of time of its blob that it is, if any.
    """

    key: str
    object: str
    parts: tuple[Blob, ...]
    label: str | None
    language: str | None
    group: str | None
    metadata: str
    time_range: TimeRange | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """Why a sample (or, without a ``key``, something that is not a sample) stays out of the snapshot.

    ``reason`` is a stable code, ``detail`` a sentence. ``object`` is the drop's object at fault, ``member`` a tar
    member, ``line`` a line (or row) of the index.
    """

    reason: str
    detail: str
    object: str
    key: str | None = None
    member: str | None = None
    line: int | None = None
    modality: str | None = None
    digest: str | None = None
    size_bytes: int | None = None


class Spool(AbstractContextManager["Spool"]):
    """Bytes on disk between reading and writing, so that memory holds one blob and not a shard.

    Without a path it only counts: checking a drop needs no blob again.
    """

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("w+b") if path else None
        self._end = 0
        self._is_at_end = True

    def append(self, data: bytes) -> int:
        """Keeps ``data`` and returns its offset."""
        offset = self._end
        if self._file is not None:
            if not self._is_at_end:
                self._file.seek(offset)
                self._is_at_end = True
            self._file.write(data)
        self._end += len(data)
        return offset

    def read(self, offset: int, size_bytes: int) -> bytes:
        """The ``size_bytes`` bytes from ``offset`` on."""
        assert self._file is not None
        self._is_at_end = False
        self._file.seek(offset)
        return self._file.read(size_bytes)

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


class VerifiedReader:
    """A stream of a raw object that is hashed while it is read and compared with ``drop.json`` at its end.

    It stops as soon as more bytes come than were declared.
    """

    def __init__(self, stream: IO[bytes], expected: DropObject, where: str) -> None:
        self._stream = stream
        self._expected = expected
        self._where = where
        self._hasher = hashlib.sha256()
        self._num_bytes = 0

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        """At most ``size`` bytes; empty at the end.

        Raises:
            ObjectCorruptError: the object is longer than declared.
        """
        with translated(self._where):
            data = self._stream.read(size)
        self._hasher.update(data)
        self._num_bytes += len(data)
        if self._num_bytes > self._expected.size_bytes:
            raise self._mismatch(f"more than {self._expected.size_bytes} bytes")
        return data

    def finish(self) -> None:
        """Reads what is left, closes the stream and compares the whole.

        Raises:
            ObjectCorruptError: the object is not the one the drop declares.
        """
        while self.read():
            pass
        self._stream.close()
        self._require_declared(self._hasher.hexdigest())

    def _require_declared(self, sha256: str) -> None:
        if (sha256, self._num_bytes) != (self._expected.sha256, self._expected.size_bytes):
            raise self._mismatch(f"sha256:{sha256} ({self._num_bytes} bytes)")

    def _mismatch(self, got: str) -> MmError:
        return ObjectCorruptError(
            f"{self._where}: is not the object that its drop.json declares: expected {self._expected.digest} "
            f"({self._expected.size_bytes} bytes), got {got}. {remedy(self._expected)}, "
            "then run this partition again."
        )


def remedy(entry: DropObject) -> str:
    """How a raw object is put right, as the beginning of a sentence."""
    if entry.uri is not None:
        return "Put the declared bytes back there, or register the data again as another drop"
    return "Put the declared bytes back with `mm drop push FOLDER` from the drop's folder"


def id_of(drop: Drop, key: str) -> str:
    """``<source>/<drop>/<key>``, the sample's id outside its drop."""
    return f"{drop.source}/{drop.drop}/{key}"


def metadata_json(values: Mapping[str, object]) -> str:
    """Canonical JSON of further columns; values that JSON lacks become strings, NaN and infinities null.

    Numbers from 2 ** 53 on become strings too, whole or not: canonical JSON writes 2.0 ** 53 as an integer, and has
    none of that size. What is read back from it is written again as the same bytes.

    Raises:
        IdentityError: a string is not Unicode text.
    """
    plain = {name: _plain(value) for name, value in values.items()}
    try:
        return canonical_json(plain).decode()
    except UnicodeError as error:
        raise IdentityError(f"metadata: is not Unicode text: {error}.") from error


def _plain(value: object) -> Json:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int | float):
        return value if abs(value) < 1 << 53 else str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("list[Any]", value)]
    if isinstance(value, bytes):
        return value.hex()
    # Dates, times, decimals and UUIDs of a Parquet index: their ISO or decimal spelling is stable.
    return str(value)
