"""Raw objects where they lie: below the store's prefix, or at the URI that a drop records.

What is at a URI is read by version where its bucket keeps versions, and compared with the recorded digest always, so
an object that was changed since is named and never used.
"""

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from mm_assets.drops.record import Drop, DropObject, validated
from mm_assets.drops.samples import VerifiedReader, remedy
from mm_assets.errors import DropError, ObjectMissingError
from mm_assets.identity.canonical import CHUNK_BYTES
from mm_assets.store.client import translated
from mm_assets.store.objects import Store

HASH_THREADS = 8


def open_raw(store: Store, drop: Drop, entry: DropObject) -> VerifiedReader:
    """A verifying stream of one raw object.

    Raises:
        ObjectMissingError: it does not exist.
    """
    place = drop.place(entry.name)
    try:
        stream = open_object(store, drop, entry)
    except ObjectMissingError as error:
        raise ObjectMissingError(
            f"{place}: is missing from the store: expected {entry.digest} ({entry.size_bytes} bytes), got nothing. "
            f"{remedy(entry)}, then run this partition again."
        ) from error
    return VerifiedReader(stream, entry, place)


def open_object(
    store: Store, drop: Drop, entry: DropObject, *, first: int = 0, size_bytes: int | None = None
) -> IO[bytes]:
    """A stream of one raw object, wherever it lies, or of ``size_bytes`` from ``first`` on.

    Raises:
        ObjectMissingError: it does not exist.
    """
    if entry.uri is not None:
        require_outside(store, entry.uri)
        return store.open_uri(entry.uri, version_id=entry.version_id, first=first, size_bytes=size_bytes).body
    return store.open_key(drop.place(entry.name), first=first, size_bytes=size_bytes)


def describe_uris(store: Store, uris: Iterable[str], on_object: Callable[[], None] = lambda: None) -> list[DropObject]:
    """Size, digest and version of what is at these URIs, several read at a time; those that do not exist are left out.

    Raises:
        StoreDeniedError: the credentials may not read one of them.
    """

    def describe(uri: str) -> DropObject | None:
        try:
            return _describe(store, uri)
        except ObjectMissingError:
            return None

    found: list[DropObject] = []
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        for entry in pool.map(describe, sorted(set(uris))):
            on_object()
            if entry is not None:
                found.append(entry)
    return found


def require_outside(store: Store, uri: str) -> None:
    """What is in the store belongs to a source with terms of its own: no drop brings it in under others.

    Raises:
        DropError: ``uri`` lies in the store.
    """
    if uri.startswith(store.uri("")):
        raise DropError(
            f"{uri}: lies in the store itself: expected an object outside {store.uri('')}. Open a release over the "
            "drop that it belongs to."
        )


def _describe(store: Store, uri: str) -> DropObject:
    require_outside(store, uri)
    opened = store.open_uri(uri)
    hasher, size_bytes = hashlib.sha256(), 0
    with opened.body as body, translated(uri):
        while chunk := body.read(CHUNK_BYTES):
            hasher.update(chunk)
            size_bytes += len(chunk)
    with validated(repr(uri), "Give the object another key"):
        return DropObject(uri=uri, size_bytes=size_bytes, sha256=hasher.hexdigest(), version_id=opened.version_id)
