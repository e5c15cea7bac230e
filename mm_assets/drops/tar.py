"""Reads one WebDataset tar of a drop as a stream: every member once, every blob checked before it is kept.

The tar may be packed by gzip.

Members ``<key>.<extension>`` and ``<key>.<number>.<extension>`` of one key form a sample, also where they are not
neighbours. ``.json`` gives label, language, group and metadata, ``.cls`` a label; members of any other extension are
counted, recorded in the metadata by digest, and stay in the raw tar. Links, devices and names that leave the tar reject
their sample. A tar that cannot be read up to an end marker and zeros behind it is an error: nobody can say what it
would have held.
"""

import hashlib
import io
import re
import tarfile
from pathlib import PurePosixPath
from typing import Any

from mm_assets.drops.blobs import inspect_blob
from mm_assets.drops.collection import Collection
from mm_assets.drops.fields import printable
from mm_assets.drops.grouping import DESCRIPTIONS, Piece, Runs
from mm_assets.drops.gz import GZIP_SUFFIXES, GzipReader
from mm_assets.drops.parts import numbered_modality
from mm_assets.drops.record import Drop
from mm_assets.drops.samples import Rejection, VerifiedReader
from mm_assets.drops.tar_headers import StrictInfo
from mm_assets.errors import MmError, StageError
from mm_assets.identity.canonical import CHUNK_BYTES
from mm_assets.modalities.reasons import Refusal

BUFFER_BYTES = 1 << 20
#: At the end of the data one or two are made.
MAX_EMPTY_READS = 16
MEMBER_NAME = re.compile(r"^((?:.*/)?[^./][^./]*)\.([^/]+)$")
META_NAME = re.compile(r"^__[^/]*__($|/)")


class _RawReader(io.RawIOBase):
    """A verified stream as what Python's buffers read from.

    A member that declares more bytes than follow is skipped by reading them: that must end.
    """

    def __init__(self, reader: VerifiedReader | GzipReader) -> None:
        self._reader = reader
        self._num_empty = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills ``buffer`` as far as one read does; 0 at the end."""
        data = self._reader.read(len(buffer))
        self._num_empty += not data
        if self._num_empty > MAX_EMPTY_READS:
            raise tarfile.ReadError("ends before what its last member declares")
        buffer[: len(data)] = data
        return len(data)


def read_tar(reader: VerifiedReader, drop: Drop, object_key: str, found: Collection) -> None:
    """Adds everything that one tar holds to ``found``.

    Raises:
        ObjectCorruptError: the tar is not the one the drop declares.
        StageError: it cannot be read to its end, has bytes behind its end marker, has more members than
            ``max_tar_members``, or unpacks to more than ``max_unpacked_bytes``.
    """
    found.begin(drop, object_key)
    members = _Members(object_key, found)
    # The standard reader copies what is left of its own buffer at each read, so that one is small.
    unpacked: VerifiedReader | GzipReader = reader
    if object_key.endswith(GZIP_SUFFIXES):
        unpacked = GzipReader(reader, found.config.max_unpacked_bytes, object_key)
    stream = io.BufferedReader(_RawReader(unpacked), BUFFER_BYTES)
    offset = 0
    try:
        with tarfile.open(
            mode="r|", fileobj=stream, bufsize=tarfile.RECORDSIZE, tarinfo=StrictInfo, errorlevel=2, encoding="utf-8"
        ) as archive:
            for info in archive:
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue] - else it keeps every header
                members.read(archive, info)
                offset = archive.offset  # pyright: ignore[reportAttributeAccessIssue]
            _require_zeros(archive)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        if isinstance(error, MmError):
            raise
        # Bytes that are not the declared ones are the better explanation.
        reader.finish()
        raise StageError(_unreadable(object_key, members.last, offset, error)) from error
    reader.finish()


def _unreadable(object_key: str, last_member: str, offset: int, error: Exception) -> str:
    place = f"byte {offset} on, last member {printable(last_member)}" if last_member else "its start"
    return (
        f"{object_key}: the tar cannot be read to its end: from {place}: {error}: expected members up to an end marker "
        "and nothing but zeros behind it. What the rest holds is unknown, so nothing of the tar is used: "
        "deliver it again as a new drop."
    )


def _require_zeros(archive: tarfile.TarFile) -> None:
    """Raises ``ReadError`` for what the standard reader does not look at: data behind the end marker."""
    stream: Any = archive.fileobj
    while chunk := stream.read(CHUNK_BYTES):
        rest = chunk.lstrip(b"\0")
        if rest:
            place = stream.tell() - len(rest)
            raise tarfile.ReadError(f"data behind its end marker at byte {place}, as where tars were concatenated")


class _Members:
    """Reads the members of one tar."""

    def __init__(self, object_key: str, found: Collection) -> None:
        self.last = ""
        self._object = object_key
        self._found = found
        self._runs = Runs()
        self._num_members = 0

    def read(self, archive: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        """Reads one member."""
        self._num_members += 1
        if self._num_members > self._found.config.max_tar_members:
            raise StageError(
                f"{self._object}: has too many members: expected at most {self._found.config.max_tar_members}. "
                "Split the tar."
            )
        self.last = info.name
        name = info.name.removeprefix("./")
        if info.isdir():
            return
        if not _is_safe(info.name):
            self._reject(info, "unsafe_path", f"member {info.name!r} has a name that leaves the tar")
            return
        if PurePosixPath(name).name.startswith(".") or META_NAME.match(name):
            self._found.ignore(name)
            return
        parts = MEMBER_NAME.match(name)
        if parts is None:
            self._reject(info, "no_extension", f"member {name} has no extension that says what it is")
            return
        key, extension = parts[1], parts[2].lower()
        if not info.isreg() or info.issparse():
            kind = "a link" if info.islnk() or info.issym() else "not a regular file"
            piece = Piece(extension=extension, member=name, refusal=Refusal("not_a_file", f"member {name} is {kind}"))
        else:
            piece = _read_piece(archive, info, name, extension, self._found)
        self._found.add_piece(key, self._runs.number(key, extension), piece)

    def _reject(self, info: tarfile.TarInfo, reason: str, detail: str) -> None:
        """Records a member that belongs to no sample."""
        self._found.add_rejection(
            Rejection(reason=reason, detail=detail, object=self._object, member=info.name, size_bytes=info.size)
        )


def _is_safe(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and not name.startswith("\\")


def _read_piece(archive: tarfile.TarFile, info: tarfile.TarInfo, name: str, extension: str, found: Collection) -> Piece:
    config = found.config
    modality = numbered_modality(extension)
    is_described = extension in DESCRIPTIONS
    ceiling = config.max_bytes(modality) if modality else config.max_metadata_bytes if is_described else 0
    data, digest = _read_bytes(archive, info, ceiling)
    common: dict[str, Any] = {
        "extension": extension, "member": name, "digest": digest, "size_bytes": info.size,
    }  # fmt: skip
    if modality is None and not is_described:
        return Piece(**common)
    if data is None:
        detail = f"{modality or extension} has {info.size} bytes; {ceiling} are allowed"
        return Piece(**common, refusal=Refusal("too_large", detail))
    if modality is None:
        return Piece(**common, place=(found.descriptions.append(data), len(data)))
    kind = inspect_blob(modality, data, config)
    if isinstance(kind, Refusal):
        return Piece(**common, refusal=kind)
    return Piece(**common, format=kind, place=(found.blobs.append(data), len(data)))


def _read_bytes(archive: tarfile.TarFile, info: tarfile.TarInfo, ceiling: int) -> tuple[bytes | None, str]:
    """The member's bytes, or None where they exceed the ceiling, and their digest."""
    stream = archive.extractfile(info)
    assert stream is not None
    hasher = hashlib.sha256()
    kept: list[bytes] | None = [] if info.size <= ceiling else None
    num_bytes = 0
    while chunk := stream.read(CHUNK_BYTES):
        hasher.update(chunk)
        num_bytes += len(chunk)
        if kept is not None:
            kept.append(chunk)
    if num_bytes != info.size:
        raise tarfile.ReadError(f"member {info.name} has {num_bytes} of {info.size} bytes")
    return (None if kept is None else b"".join(kept)), "sha256:" + hasher.hexdigest()
