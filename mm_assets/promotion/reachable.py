"""Re-hashes everything that manifests make reachable: their outputs, their inputs, and the raw data of their drops.

What an object is follows from its own bytes (the ``schema`` it begins with), so a new asset needs no entry here.
Objects are streamed, never kept; only manifests and drop descriptions are held while their names are read.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import IO, Any, cast

from mm_assets.drops.record import Drop, DropObject, parse_drop
from mm_assets.errors import DropError, ObjectCorruptError, ObjectMissingError
from mm_assets.features.pretrained import parse_encoder
from mm_assets.identity.canonical import CHUNK_BYTES
from mm_assets.store.manifest import parse_manifest
from mm_assets.store.objects import Store, object_key

NUM_READERS = 8
MAX_IN_FLIGHT = 4 * NUM_READERS
#: Of inputs only JSON objects up to this size are kept in memory: a manifest of 100,000 shards has 60 MB.
MAX_DOCUMENT_BYTES = 256 << 20

RESTORE = "Restore the object, or delete it and run the partition that made it again."
PUT_BACK = "Put the declared bytes back there, or register the data again as another drop."


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One key to re-hash; ``is_input`` says that it may be a document that names others.

    ``uri`` and ``version_id`` are of a raw object that was registered where it lies; ``key`` is its URI then.
    """

    key: str
    digest: str
    is_input: bool = False
    uri: str | None = None
    version_id: str | None = None

    def open(self, store: Store) -> IO[bytes]:
        """A stream of its bytes."""
        if self.uri is not None:
            return store.open_uri(self.uri, version_id=self.version_id).body
        return store.open_key(self.key)


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    """What was found: the number of keys, and those that are wrong with a sentence each."""

    num_objects: int
    corrupt: dict[str, str]
    missing: dict[str, str]


def object_target(digest: str, *, is_input: bool = False) -> Target:
    """The object named ``digest``."""
    return Target(key=object_key(digest), digest=digest, is_input=is_input)


def walk_objects(store: Store, roots: Iterable[Target], on_object: Callable[[], None] = lambda: None) -> Walk:
    """Re-hashes the roots and everything they name, each key once, in ``NUM_READERS`` threads.

    Args:
        store: The store to read.
        roots: Where to start; manifests among them need ``is_input``.
        on_object: Called in this thread after each key, for a progress bar.
    """
    corrupt: dict[str, str] = {}
    missing: dict[str, str] = {}
    waiting = deque(roots)
    seen: dict[str, bool] = {}
    running: dict[Future[list[Target]], Target] = {}
    with ThreadPoolExecutor(NUM_READERS) as pool:
        while waiting or running:
            while waiting and len(running) < MAX_IN_FLIGHT:
                target = waiting.popleft()
                # What was hashed as plain bytes is read again if it turns out to be a document.
                if target.key not in seen or (target.is_input and not seen[target.key]):
                    seen[target.key] = target.is_input
                    running[pool.submit(_visit, store, target)] = target
            done, _ = wait(running, return_when=FIRST_COMPLETED) if running else (set[Future[list[Target]]](), None)
            for future in done:
                target = running.pop(future)
                try:
                    waiting.extend(future.result())
                except ObjectCorruptError as error:
                    corrupt[target.key] = str(error)
                except ObjectMissingError as error:
                    missing[target.key] = str(error)
                on_object()
    return Walk(num_objects=len(seen), corrupt=corrupt, missing=missing)


def verify_reachable(store: Store, manifests: Iterable[str], on_object: Callable[[], None] = lambda: None) -> int:
    """Re-hashes everything that these manifests make reachable, down to the raw objects; returns how many keys.

    Args:
        store: The store to read.
        manifests: Digests of manifests.
        on_object: Called after each key.

    Raises:
        ObjectCorruptError: the bytes of a key are not what a manifest or a drop says; the message names the key.
        ObjectMissingError: a key does not exist.
    """
    walk = walk_objects(store, [object_target(digest, is_input=True) for digest in manifests], on_object)
    wrong = {**walk.missing, **walk.corrupt}
    if wrong:
        others = f" {len(wrong) - 1} more of {walk.num_objects} objects are damaged; `mm verify` lists them."
        sentence = wrong[min(wrong)] + (others if len(wrong) > 1 else "")
        raise (ObjectCorruptError if min(wrong) in walk.corrupt else ObjectMissingError)(sentence)
    return walk.num_objects


def _visit(store: Store, target: Target) -> list[Target]:
    """Re-hashes one key and returns what it names."""
    hasher = hashlib.sha256()
    kept = bytearray()
    is_document = target.is_input
    with target.open(store) as body:
        while chunk := body.read(CHUNK_BYTES):
            hasher.update(chunk)
            is_document = is_document and (bool(kept) or chunk.lstrip().startswith(b"{"))
            is_document = is_document and len(kept) + len(chunk) <= MAX_DOCUMENT_BYTES
            if is_document:
                kept += chunk
    actual = "sha256:" + hasher.hexdigest()
    if actual != target.digest:
        raise ObjectCorruptError(
            f"{target.uri or store.uri(target.key)}: bytes do not match their digest: expected {target.digest}, "
            f"got {actual}. {RESTORE if target.uri is None else PUT_BACK}"
        )
    return _named_by(store, target, bytes(kept)) if is_document else []


def _version_of(drop: Drop, entry: DropObject) -> str:
    """What is read once: two drops may have two versions of one object."""
    version = f"?versionId={entry.version_id}" if entry.version_id else ""
    return drop.place(entry.name) + version


def _named_by(store: Store, target: Target, data: bytes) -> list[Target]:
    where = store.uri(target.key)
    try:
        schema = str(cast("dict[str, Any]", json.loads(data)).get("schema"))
    except ValueError:
        # Bytes that are what their digest says and only look like JSON name nothing.
        return []
    try:
        if schema.startswith("mm.manifest/"):
            manifest = parse_manifest(data, where)
            return [
                *(object_target(entry.manifest, is_input=True) for entry in manifest.inputs),
                *(object_target(output.digest) for output in manifest.outputs),
            ]
        if schema.startswith("mm.drop/"):
            drop = parse_drop(data, where)
            return [
                Target(key=_version_of(drop, entry), digest=entry.digest, uri=entry.uri, version_id=entry.version_id)
                for entry in drop.objects
            ]
        if schema.startswith("mm.encoder/"):
            return [object_target(file.digest) for file in parse_encoder(data, where).files]
    except DropError as error:
        raise ObjectCorruptError(str(error)) from error
    return []
