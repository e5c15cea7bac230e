"""Reads one WebDataset tar of a drop as a stream: every member once, every blob checked before it is kept.

Members ``<key>.<extension>`` of one key form a sample, also where they are not neighbours. ``.json`` gives label,
language, group and metadata, ``.cls`` a label; members of any other extension are recorded in the metadata by
digest and stay in the raw tar. Links, devices and names that leave the tar reject their sample.
"""

import hashlib
import json
import re
import tarfile
from pathlib import PurePosixPath
from typing import Any, cast

from mm_assets.drops.blobs import inspect_blob
from mm_assets.drops.fields import misspelt, printable, wrongly_typed
from mm_assets.drops.grouping import DESCRIPTIONS, Grouping, Piece
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.samples import (
    LABEL_COLUMNS,
    Blob,
    Contents,
    Spool,
    VerifiedReader,
)
from mm_assets.errors import MmError, StageError
from mm_assets.identity.canonical import CHUNK_BYTES
from mm_assets.modalities.reasons import Refusal
from mm_assets.modalities.table import MODALITY_OF

#: Extended headers hold names; a larger one is an attack on memory.
MAX_HEADER_BYTES = 1 << 20
BUFFER_BYTES = 1 << 20
MEMBER_NAME = re.compile(r"^((?:.*/)?[^./][^./]*)\.([^/]+)$")
META_NAME = re.compile(r"^__[^/]*__($|/)")


class _StrictInfo(tarfile.TarInfo):
    """A tar header that never ends the archive silently: the standard reader takes a damaged header for its end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_StrictInfo":  # pyright: ignore[reportIncompatibleMethodOverride]
        try:
            return cast("_StrictInfo", super().fromtarfile(archive))
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # pyright: ignore[reportAttributeAccessIssue]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        extended = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)
        if self.type in (*extended, tarfile.SOLARIS_XHDTYPE) and self.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"extended header of {self.size} bytes")
        return super()._proc_member(archive)  # pyright: ignore[reportAttributeAccessIssue]


def read_tar(reader: VerifiedReader, object_key: str, config: SnapshotConfig, spool: Spool) -> Contents:
    """Everything one tar holds. A tar that breaks off yields what came before, and one rejection for the rest.

    Raises:
        ObjectCorruptError: the tar is not the one the drop declares.
        StageError: it has more members than ``config.max_tar_members``.
    """
    grouping = Grouping(object_key, config)
    try:
        with tarfile.open(
            mode="r|", fileobj=cast("Any", reader), bufsize=BUFFER_BYTES, tarinfo=_StrictInfo, errorlevel=2
        ) as archive:
            for number, info in enumerate(archive):
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue] - else it keeps every header
                if number >= config.max_tar_members:
                    raise StageError(
                        f"{object_key}: has too many members: expected at most {config.max_tar_members}. Split the tar."
                    )
                _read_member(archive, info, grouping, spool)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        if isinstance(error, MmError):
            raise
        place = f"in or after {printable(grouping.last_member)}" if grouping.last_member else "at its start"
        grouping.break_off(Refusal("unreadable_tar", f"tar breaks off {place}: {error}"))
    reader.finish()
    return grouping.finish()


def _read_member(archive: tarfile.TarFile, info: tarfile.TarInfo, grouping: Grouping, spool: Spool) -> None:
    name = info.name.removeprefix("./")
    grouping.last_member = info.name
    if info.isdir():
        return
    if not _is_safe(info.name):
        grouping.reject(info, "unsafe_path", f"member {info.name!r} has a name that leaves the tar")
        return
    if PurePosixPath(name).name.startswith(".") or META_NAME.match(name):
        grouping.contents.num_ignored += 1
        return
    parts = MEMBER_NAME.match(name)
    if parts is None:
        grouping.reject(info, "no_extension", f"member {name} has no extension that says what it is")
        return
    key, extension = parts[1], parts[2].lower()
    if not info.isreg() or info.issparse():
        kind = "a link" if info.islnk() or info.issym() else "not a regular file"
        refusal = Refusal("not_a_file", f"member {name} is {kind}")
        grouping.add(key, Piece(extension=extension, member=name, refusal=refusal))
        return
    grouping.begin(key, Piece(extension=extension, member=name))
    grouping.add(key, _read_piece(archive, info, name, extension, grouping.config, spool))


def _is_safe(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and not name.startswith("\\")


def _read_piece(
    archive: tarfile.TarFile, info: tarfile.TarInfo, name: str, extension: str, config: SnapshotConfig, spool: Spool
) -> Piece:
    modality = MODALITY_OF.get(extension)
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
        values = _parse_json(data) if extension == "json" else _parse_class(data)
        if isinstance(values, Refusal):
            return Piece(**common, refusal=values)
        return Piece(**common, values=values)
    found = inspect_blob(modality, data, config)
    if isinstance(found, Refusal):
        return Piece(**common, refusal=found)
    blob = Blob(offset=spool.append(data), size_bytes=len(data), digest=digest, format=found)
    return Piece(**common, blob=blob)


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


def _parse_json(data: bytes) -> dict[str, Any] | Refusal:
    try:
        values = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return Refusal("bad_metadata", f"json member is unreadable: {error}")
    if not isinstance(values, dict):
        return Refusal("bad_metadata", f"json member holds a {type(values).__name__}; an object is expected")
    columns = cast("dict[str, Any]", values)
    wrong = wrongly_typed(columns, LABEL_COLUMNS)
    if wrong:
        return Refusal("bad_metadata", f"json member: {wrong[0]} is a {wrong[1]}; a string or null is expected")
    for name in columns:
        meant = misspelt(name, LABEL_COLUMNS)
        if meant and meant not in columns:
            return Refusal("bad_metadata", f"json member: {name} looks like a mistake for {meant}")
    return columns


def _parse_class(data: bytes) -> dict[str, Any] | Refusal:
    try:
        return {"label": data.decode("utf-8").strip() or None}
    except UnicodeDecodeError as error:
        return Refusal("bad_metadata", f"cls member is not UTF-8: byte {error.start}")
