"""Reading objects at URIs for the first time: what they are is found out while they are checked, in one pass.

An object is looked up before it is read, so that every read is of the version that was there then; one that has other
bytes when it is read again changed meanwhile, and is refused by name.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from mm_assets.drops.raw import HASH_THREADS, require_outside
from mm_assets.drops.record import DropObject, validated
from mm_assets.drops.samples import VerifiedReader
from mm_assets.errors import DropError
from mm_assets.store.objects import Store

#: In place of a digest that is not known yet.
UNREAD = "0" * 64


class FirstReading:
    """Objects that no ``drop.json`` describes yet. Safe to share between threads.

    Args:
        store: Whose credentials read them.
        on_object: Called when the digest of another one is known.
    """

    def __init__(self, store: Store, on_object: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._on_object = on_object
        self._digests: dict[str, str] = {}
        self._known: dict[str, DropObject] = {}
        self._lock = threading.Lock()

    def look_up(self, uris: Iterable[str]) -> list[DropObject]:
        """The objects at these URIs without their digests; those that do not exist are left out.

        Raises:
            DropError: one lies in the store itself, or no record can name it.
            StoreDeniedError: the credentials, or the deployment, do not allow reading one of them.
        """
        with ThreadPoolExecutor(HASH_THREADS) as pool:
            return [entry for entry in pool.map(self._look_up, sorted(set(uris))) if entry is not None]

    def open(self, entry: DropObject) -> VerifiedReader:
        """A stream of one of them, whose digest is known when it has been read to its end.

        Raises:
            ObjectMissingError: it is gone.
        """
        assert entry.uri is not None
        return _FirstReader(self, self._store, entry, entry.uri)

    def describe(self, entries: Iterable[DropObject]) -> list[DropObject]:
        """The objects with their digests; those that nobody has read yet are read now."""

        def describe(entry: DropObject) -> DropObject:
            if entry.name not in self._digests:
                self.open(entry).finish()
            return entry.model_copy(update={"sha256": self._digests[entry.name]})

        with ThreadPoolExecutor(HASH_THREADS) as pool:
            return list(pool.map(describe, entries))

    def note(self, uri: str, sha256: str) -> None:
        """Remembers the digest of a whole object.

        Raises:
            DropError: it had another one before.
        """
        with self._lock:
            known = self._digests.setdefault(uri, sha256)
            is_new = known is sha256
        if known != sha256:
            raise DropError(
                f"{uri}: changed while it was read: expected sha256:{known}, got sha256:{sha256}. Register the data "
                "when nobody writes to them."
            )
        if is_new:
            self._on_object()

    def _look_up(self, uri: str) -> DropObject | None:
        if uri in self._known:
            return self._known[uri]
        require_outside(self._store, uri)
        found = self._store.find_uri(uri)
        if found is None:
            return None
        with validated(repr(uri), "Give the object another key"):
            entry = DropObject(uri=uri, size_bytes=found.size_bytes, sha256=UNREAD, version_id=found.version_id)
        return self._known.setdefault(uri, entry)


class _FirstReader(VerifiedReader):
    """Hashes a stream, and tells its digest instead of comparing it."""

    def __init__(self, reading: FirstReading, store: Store, entry: DropObject, uri: str) -> None:
        super().__init__(store.open_uri(uri, version_id=entry.version_id).body, entry, uri)
        self._reading = reading
        self._uri = uri

    def _require_declared(self, sha256: str) -> None:
        if self._num_bytes != self._expected.size_bytes:
            raise self._mismatch(f"{self._num_bytes} bytes")
        self._reading.note(self._uri, sha256)

    def _mismatch(self, got: str) -> DropError:
        return DropError(
            f"{self._uri}: changed while it was read: expected {self._expected.size_bytes} bytes, got {got}. Register "
            "the data when nobody writes to them."
        )
