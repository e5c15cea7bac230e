"""Making a drop from a folder and delivering it: ``mm drop create`` and ``mm drop push``.

Invariants: the same folder gives byte-identical ``drop.json``; ``drop.json`` reaches the store last and by one
conditional write, so a drop is either complete there or invisible. Checking is in ``check.py``.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm_assets.drops.contents import Contents, find_contents
from mm_assets.drops.loose import index_loose_files
from mm_assets.drops.raw import describe_uris
from mm_assets.drops.record import (
    DESCRIPTIVE_FILES,
    DROP_FILE,
    INDEX_FILES,
    INDEX_SUFFIXES,
    NAME_PATTERN,
    NAME_RULE,
    SOURCE_FILE,
    Drop,
    DropObject,
    drop_key,
    parse_drop,
    source_key,
    validated,
)
from mm_assets.drops.source import Source, parse_source, source_template
from mm_assets.errors import DropError, UsageError
from mm_assets.identity.canonical import CHUNK_BYTES, digest_bytes, digest_file
from mm_assets.store.client import translated
from mm_assets.store.objects import MAX_KEY_BYTES, KeyInfo, Store

UPLOAD_THREADS = 8
#: Beside an index that was made of loose files: its digest, so that it is made anew with the next drop.
GENERATED = ".mm-generated-index"
#: boto3 cuts uploads into parts of this size and from this size on; the ETag of the result follows from it.
PART_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class PushReport:
    """What a push did: ``num_uploaded`` of ``num_objects`` objects were sent; the drop ``was_there`` already or not."""

    source: str
    drop: str
    num_objects: int
    num_uploaded: int
    was_there: bool


def create_drop(
    folder: Path,
    source: str,
    drop: str,
    *,
    captured_from: str | None = None,
    captured_to: str | None = None,
    annotation: Mapping[str, Any] | None = None,
    index: str | None = None,
    open_remote: Callable[[], Store] | None = None,
    on_note: Callable[[str], None] = lambda _: None,
    on_object: Callable[[], None] = lambda: None,
) -> Drop:
    """Writes ``drop.json`` for a local folder, and ``source.yaml`` and ``index.jsonl`` where it has none.

    An index makes a drop of format ``index``, else tars make one of format ``webdataset``, else loose files are
    indexed.

    Args:
        folder: What is delivered.
        source: Name of the source system.
        drop: Name of this delivery.
        captured_from: ISO 8601 time, or None.
        captured_to: ISO 8601 time, or None.
        annotation: What is known of the labels; default: what ``source.yaml`` says.
        index: The index in the folder, if it has none of the known names.
        open_remote: Opens the store whose credentials read ``s3://`` URIs that an index names.
        on_note: Called with a sentence about what was decided by the names of files and folders.
        on_object: Called after each object, for a progress bar.

    Raises:
        DropError: the folder holds no data, or ``source.yaml``, an argument or the index's form is unusable.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: is not a folder. Name the folder that holds the drop's files.")
    require_names(source, drop)
    described = _described(folder / SOURCE_FILE, source)
    contents = _contents_of(folder, index, on_note)
    remote = _remote_objects(folder, contents, open_remote, on_object)
    with validated(str(folder), "Correct what it is made from"):
        made = Drop(
            schema="mm.drop/1",
            source=source,
            drop=drop,
            captured_from=captured_from,
            captured_to=captured_to,
            format=contents.format,
            objects=[*(_describe(folder, name, on_object) for name in sorted(contents.names)), *remote],
            annotation=dict(described.annotation if annotation is None else annotation),
            columns=dict(contents.columns),
            index_file=contents.index_file,
            media_folder=contents.media_folder,
        )
    data = made.encode()
    require_small(data, str(folder))
    (folder / DROP_FILE).write_bytes(data)
    return made


def _described(path: Path, source: str) -> Source:
    """The description of the source; a folder that has none gets one that declares nothing."""
    if not path.is_file():
        path.write_bytes(source_template(source))
    described = parse_source(path.read_bytes(), str(path))
    if described.source != source:
        raise DropError(
            f"{path}: describes another source: expected {source}, got {described.source}. "
            "Correct the file or --source."
        )
    return described


def require_names(source: str, drop: str) -> None:
    """Raises ``UsageError`` where one of the names cannot be part of a key."""
    for option, name in (("source", source), ("drop", drop)):
        if not re.fullmatch(NAME_PATTERN, name):
            raise UsageError(f"--{option} {name}: is not a valid name: {NAME_RULE}. Choose another.")


def require_small(data: bytes, where: str) -> None:
    """Raises ``DropError`` where a ``drop.json`` is larger than anybody will read."""
    if len(data) > MAX_KEY_BYTES:
        raise DropError(
            f"{where}: has too many files: expected a drop.json of at most {MAX_KEY_BYTES} bytes, got {len(data)}. "
            "Pack the files into tars, or deliver several drops."
        )


def list_files(folder: Path) -> Iterator[str]:
    """Names of the folder's regular files, relative to it, sorted, without those of ``left_out``."""
    yield from (name for name, why in _walk(folder) if why is None)


def left_out(folder: Path) -> dict[str, list[str]]:
    """Names of files that are no part of a delivery, sorted, by why: hidden ones, and links to elsewhere."""
    found: dict[str, list[str]] = {}
    for name, why in _walk(folder):
        if why is not None and name != GENERATED:
            found.setdefault(why, []).append(name)
    return found


def _walk(folder: Path) -> Iterator[tuple[str, str | None]]:
    root = folder.resolve()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts):
            if path.is_file():
                yield name.as_posix(), "is hidden"
        elif path.is_symlink() and not (path.exists() and path.resolve().is_relative_to(root)):
            yield name.as_posix(), "is a link that leaves the folder or leads nowhere"
        elif path.is_file() and path.resolve().is_relative_to(root):
            yield name.as_posix(), None


def push_drop(store: Store, folder: Path, *, on_object: Callable[[], None] = lambda: None) -> PushReport:
    """Uploads the folder's drop: objects first, ``drop.json`` last. Interrupted, it goes on where it stopped.

    Objects that are in the store already are not sent again; ones that were damaged there are.

    Raises:
        DropError: the folder's files are not the ones its ``drop.json`` declares, or the store has another drop or
            source of that name.
    """
    data = _read_drop_file(folder)
    drop = parse_drop(data, str(folder / DROP_FILE))
    key = drop_key(drop.source, drop.drop)
    current = store.read_key(key)
    if current is not None and current.data != data:
        raise taken_error(store.uri(key), drop)
    _push_source(store, folder, drop.source)
    present = {info.key: info for info in store.list_keys(drop.prefix)}

    def push(entry: DropObject) -> bool:
        sent = _push_object(store, folder, drop.prefix, entry, present)
        on_object()
        return sent

    local = [entry for entry in drop.objects if entry.uri is None]
    with ThreadPoolExecutor(UPLOAD_THREADS) as pool:
        num_uploaded = sum(pool.map(push, local))
    if not store.create_key(key, data):
        raise taken_error(store.uri(key), drop)
    return PushReport(
        source=drop.source,
        drop=drop.drop,
        num_objects=len(drop.objects),
        num_uploaded=num_uploaded,
        was_there=current is not None,
    )


def find_complete_drops(store: Store) -> list[tuple[str, str]]:
    """(source, drop) of every drop whose ``drop.json`` has arrived, sorted; the others are still on their way."""
    return sorted(
        (source, drop)
        for source in store.list_folders("raw/")
        for drop in store.list_folders(f"raw/{source}/")
        if any(info.key == drop_key(source, drop) for info in store.list_keys(drop_key(source, drop)))
    )


def _contents_of(folder: Path, index: str | None, on_note: Callable[[str], None]) -> Contents:
    """What a folder consists of; loose files get an index first."""
    names = [name for name in list_files(folder) if name not in DESCRIPTIVE_FILES]
    if is_index_generated(folder):
        # The files may be others now.
        names.remove(INDEX_FILES[0])

    def path_of(name: str) -> Path:
        return folder / name

    contents = find_contents(names, path_of, str(folder), index)
    if contents is None:
        data = index_loose_files(folder, names, on_note)
        (folder / INDEX_FILES[0]).write_bytes(data)
        (folder / GENERATED).write_text(digest_bytes(data), encoding="utf-8")
        tables = [name for name in names if name.endswith(INDEX_SUFFIXES)]
        if tables:
            on_note(f"{tables[0]} is not read: if it is the index of these files, name it with --index")
        contents = find_contents([*names, INDEX_FILES[0]], path_of, str(folder))
        assert contents is not None
    return contents


def is_index_generated(folder: Path) -> bool:
    """Whether the folder's ``index.jsonl`` is one that ``create_drop`` made of loose files, and as it made it."""
    index, said = folder / INDEX_FILES[0], folder / GENERATED
    if not index.is_file() or not said.is_file():
        return False
    return said.read_text(encoding="utf-8") == digest_file(index)


def _remote_objects(
    folder: Path, contents: Contents, open_remote: Callable[[], Store] | None, on_object: Callable[[], None]
) -> list[DropObject]:
    if not contents.uris:
        return []
    if open_remote is None:
        raise DropError(f"{folder}: its index names {min(contents.uris)}: no store is configured to read it with.")
    return describe_uris(open_remote(), contents.uris, on_object)


def _describe(folder: Path, name: str, on_object: Callable[[], None]) -> DropObject:
    path = folder / name
    entry = DropObject(key=name, size_bytes=path.stat().st_size, sha256=digest_file(path).removeprefix("sha256:"))
    on_object()
    return entry


def _read_drop_file(folder: Path) -> bytes:
    path = folder / DROP_FILE
    if not path.is_file():
        raise DropError(f"{path}: does not exist. Make the drop with `mm drop create {folder} --source S --drop D`.")
    return path.read_bytes()


def taken_error(uri: str, drop: Drop) -> DropError:
    """Another drop has that name."""
    return DropError(
        f"{uri}: another drop of that name is in the store, and drops never change. "
        f"Create this one under another name than {drop.drop}."
    )


def _push_source(store: Store, folder: Path, source: str) -> None:
    """A source is described once: a folder whose description declares nothing takes over the store's."""
    path = folder / SOURCE_FILE
    if not path.is_file():
        raise DropError(f"{path}: does not exist. Run `mm drop create` to get a description to fill in.")
    data = path.read_bytes()
    described = parse_source(data, str(path))
    if described.source != source:
        raise DropError(f"{path}: describes another source: expected {source}, got {described.source}.")
    put_source(store, data, source, str(path))


def put_source(store: Store, data: bytes, source: str, where: str) -> None:
    """Describes a source, unless it is described already.

    Raises:
        DropError: it is described otherwise.
    """
    key = source_key(source)
    if store.create_key(key, data) or parse_source(data, where).is_undeclared:
        return
    raise DropError(
        f"{where}: differs from the description of {source} in the store, {store.uri(key)}. "
        "Use that one, or create the drop under another source name."
    )


def _push_object(store: Store, folder: Path, prefix: str, entry: DropObject, present: Mapping[str, KeyInfo]) -> bool:
    """Sends one object unless the store has exactly it; whether it was sent."""
    path = folder / entry.name
    if not path.is_file():
        raise DropError(f"{path}: does not exist: expected {entry.digest}. Restore it, or create the drop again.")
    digest, etag = _digests(path)
    if digest != entry.digest:
        raise DropError(
            f"{path}: has changed since drop.json was written: expected {entry.digest}, got {digest}. "
            "Restore it, or create the drop again."
        )
    key = prefix + entry.name
    known = present.get(key)
    if known is not None and known.size_bytes == entry.size_bytes:
        if known.etag == etag or _stored_digest(store, key) == digest:
            return False
    store.upload_key(key, path)
    return True


def _digests(path: Path) -> tuple[str, str]:
    """A file's digest, and the ETag a server gives it after an upload in parts of ``PART_BYTES``."""
    whole, parts = hashlib.sha256(), list[bytes]()
    with path.open("rb") as file:
        while chunk := file.read(PART_BYTES):
            whole.update(chunk)
            parts.append(hashlib.md5(chunk, usedforsecurity=False).digest())
    if path.stat().st_size < PART_BYTES:
        etag = parts[0].hex() if parts else hashlib.md5(b"", usedforsecurity=False).hexdigest()
    else:
        etag = f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"
    return "sha256:" + whole.hexdigest(), etag


def _stored_digest(store: Store, key: str) -> str:
    """Digest of what the store has: servers that encrypt or cut differently have other ETags for the same bytes."""
    hasher = hashlib.sha256()
    with translated(store.uri(key)), store.open_key(key) as body:
        while chunk := body.read(CHUNK_BYTES):
            hasher.update(chunk)
    return "sha256:" + hasher.hexdigest()
