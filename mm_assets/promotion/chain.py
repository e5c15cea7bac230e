"""The chain of records of one state of the registry, and how it survives what happens to its keys.

Per state one key, ``refs/registry/<state>.json`` (the head), moved by one conditional write. A record names the record
before it by digest. Every record is kept twice more: as an object, and as the numbered entry
``registry/<state>/<sequence>.json``, written once. A record becomes head only after the entry of the one before it
exists, so a head that was deleted, damaged or put back to an older state is recognised and repaired from the entries.

The records of one release follow each other without another in between, so one small key per release
(``registered/<state>/<release>.json``) finds them however long the chain is.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from mm_assets.errors import CommitConflictError, ObjectCorruptError, ObjectMissingError
from mm_assets.identity.canonical import canonical_json, digest_bytes
from mm_assets.promotion.record import (
    STATES,
    UNNUMBERED,
    RegistryRecord,
    State,
    entry_key,
    first_key,
    registry_key,
)
from mm_assets.store.manifest import Partition, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.refs import read_ref

logger = logging.getLogger(__name__)

REGISTRATION = "registration"
#: How often one writer may lose before it gives up. S3 moves one key about 15 times a second.
MAX_ATTEMPTS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """One record of a history: its bytes, and the place in the history that it was found at."""

    number: int
    data: bytes
    record: RegistryRecord

    @property
    def digest(self) -> str:
        """What the next record calls ``previous``."""
        return digest_bytes(self.data)


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """The last record of a state, and the ETag of its key (None: there is no such key).

    ``damage`` says what is wrong with the key; ``data`` is then what it has to hold.
    """

    data: bytes | None
    etag: str | None
    damage: str | None = None


def read_production(store: Store) -> RegistryRecord | None:
    """The model in production, or None.

    Raises:
        ObjectCorruptError: the key holds something else and there is nothing to repair it from.
    """
    return read_registry(store, "production")


def read_registry(store: Store, state: State) -> RegistryRecord | None:
    """The record of ``state``, or None; from the numbered entries where its key was deleted or damaged.

    Raises:
        ObjectCorruptError: the key holds something else and there is nothing to repair it from.
    """
    return head_record(store, state, find_head(store, state))


def read_history(store: Store, state: State) -> Iterator[RegistryRecord]:
    """Every record ``state`` ever had, latest first.

    Raises:
        ObjectCorruptError: a record is something else. ObjectMissingError: an older one is gone.
    """
    head = find_head(store, state)
    return (record for _, record in _walk(store, state, head.data))


def repair_registry(store: Store) -> tuple[State, ...]:
    """Puts every head back that was deleted, damaged or replaced by an older record; returns the states it repaired.

    Also completes the numbered entries, which a history of ``mm.production/1`` does not have yet.

    Raises:
        ObjectCorruptError: a head holds something else and there is nothing to repair it from.
        CommitConflictError: others moved the registry all the time.
    """
    return tuple(state for state in STATES if _repair(store, state))


def find_head(store: Store, state: State) -> Head:
    """The last record of ``state``, whatever happened to its key. Reads three small keys while nothing is wrong.

    Raises:
        ObjectCorruptError: the key holds something else and there is nothing to repair it from.
    """
    key = registry_key(state)
    current = store.read_key(key)
    while True:
        data, etag = (current.data, current.etag) if current else (None, None)
        if data is not None and _is_consistent(store, state, data):
            return Head(data=data, etag=etag)
        head = _examine(store, state, data, etag)
        again = store.read_key(key)
        # A head that moved meanwhile only looked out of date.
        if (again.etag if again else None) == etag:
            return head
        current = again


def head_record(store: Store, state: State, head: Head) -> RegistryRecord | None:
    """The record that ``head`` holds, or None where nothing was registered."""
    return None if head.data is None else _parse(store, state, head.data)


def records_of(store: Store, state: State, release: str, head: Head) -> list[RegistryRecord]:
    """The records of one release up to ``head``, latest first. What is read does not grow with the chain.

    Raises:
        ObjectCorruptError: a record, or the key of the release, is something else. ObjectMissingError: one is gone.
    """
    last = head_record(store, state, head)
    if last is None:
        return []
    if last.release != release and last.sequence != UNNUMBERED and _is_complete(store, last):
        first = store.read_key(first_key(state, release))
        found = [] if first is None else _read_from(store, state, release, first.data)
        if found or (first is None and not _was_registered(store, state, release)):
            return found
    # The release's own records are the last ones, or its key does not tell where they are.
    records: list[RegistryRecord] = []
    for _, record in _walk(store, state, head.data):
        if record.release == release:
            records.append(record)
        elif records:
            break
    return records


def first_bytes(number: int) -> bytes:
    """What the key of a release holds whose first record is ``number``."""
    return canonical_json({"schema": "mm.registered/1", "number": number})


def append(store: Store, head: Head, new: RegistryRecord) -> bool:
    """Makes ``new`` the record after ``head``; False if others moved the head meanwhile."""
    state, number, previous = new.state, 1, None
    if head.data is not None:
        # Complete up to the head before it is replaced: no record can be lost with the key.
        _complete(store, state, head.data)
        number, previous = _number_of(store, state, head.data) + 1, digest_bytes(head.data)
    record = new.model_copy(update={"sequence": number, "previous": previous})
    data = record.encode()
    store.put_bytes(data)
    if not _move(store, state, data, head.etag):
        return False
    store.create_key(entry_key(state, number), data)
    if store.read_key(first_key(state, record.release)) is None:
        _write_first(store, state, record.release, number)
    return True


def read_links(store: Store, state: State, data: bytes | None) -> list[Link]:
    """The history from the record ``data`` back to the first one, latest first, each with its number.

    Raises:
        ObjectCorruptError: a record is something else. ObjectMissingError: an older one is gone.
    """
    chain = list(_walk(store, state, data))
    links = [Link(number=len(chain) - place, data=found, record=record) for place, (found, record) in enumerate(chain)]
    for link in links:
        if link.record.sequence not in (UNNUMBERED, link.number):
            raise ObjectCorruptError(
                f"{store.uri(entry_key(state, link.number))}: has another place in the history: "
                f"expected {link.number}, got {link.record.sequence}."
            )
    return links


def _repair(store: Store, state: State) -> bool:
    is_repaired = False
    for _ in range(MAX_ATTEMPTS):
        head = find_head(store, state)
        if head.damage is not None:
            is_repaired = put_head_back(store, state, head) or is_repaired
            continue
        if head.data is not None:
            _complete(store, state, head.data)
        return is_repaired
    raise CommitConflictError(
        f"registry {state}: others moved it {MAX_ATTEMPTS} times while it was being repaired. Run it again."
    )


def put_head_back(store: Store, state: State, head: Head) -> bool:
    """Writes a damaged head again as it has to be; False if there is nothing to write, or others moved it."""
    if head.data is None or not _move(store, state, head.data, head.etag):
        return False
    logger.warning("registry %s: %s; restored from its numbered entries", state, head.damage)
    return True


def _move(store: Store, state: State, data: bytes, etag: str | None) -> bool:
    key = registry_key(state)
    return store.create_key(key, data) if etag is None else store.replace_key(key, data, etag)


def _complete(store: Store, state: State, data: bytes) -> None:
    """Writes what is missing of the records up to ``data``: numbered entry, object, and the key of its release.

    A record becomes head only after all of this exists for the one before it, so that mostly the head alone is looked
    at; the chain is walked where that is not so, as in one that was written without some of these keys.
    """
    record = _parse(store, state, data)
    if record.sequence != UNNUMBERED and _is_complete(store, record):
        return
    present = {info.key for info in store.list_keys(f"registry/{state}/")}
    release = None
    for link in reversed(read_links(store, state, data)):
        key = entry_key(state, link.number)
        if key not in present:
            store.put_bytes(link.data)
            if not store.create_key(key, link.data):
                raise CommitConflictError(f"{store.uri(key)}: holds another record. Run `mm verify`.")
        if link.record.release != release:
            release = link.record.release
            _write_first(store, state, release, link.number)


def _is_complete(store: Store, record: RegistryRecord) -> bool:
    """Whether the entry and the release's key of a numbered record exist, and its object."""
    keys = (entry_key(record.state, record.sequence), first_key(record.state, record.release))
    return all(store.read_key(key) is not None for key in keys)


def _write_first(store: Store, state: State, release: str, number: int) -> None:
    key = first_key(state, release)
    data = first_bytes(number)
    current = store.read_key(key)
    if current is not None and current.data != data:
        logger.warning("registry %s: %s named another record; it is written again", state, key)
        store.replace_key(key, data, current.etag)
    elif current is None:
        store.create_key(key, data)


def _is_consistent(store: Store, state: State, data: bytes) -> bool:
    """Whether a head is where the numbered entries end. False means that a closer look is needed."""
    record = _try_parse(data)
    if record is None or record.state != state or record.sequence == UNNUMBERED:
        return False
    if store.read_key(entry_key(state, record.sequence + 1)) is not None:
        return False
    own = store.read_key(entry_key(state, record.sequence))
    if own is not None:
        return own.data == data
    if record.sequence == 1:
        return True
    before = store.read_key(entry_key(state, record.sequence - 1))
    return before is not None and digest_bytes(before.data) == record.previous


def _examine(store: Store, state: State, data: bytes | None, etag: str | None) -> Head:
    """What the head has to be, by its own history and by the numbered entries."""
    own = None if data is None else _try_links(store, state, data)
    last = _last_entry(store, state)
    if own is not None and (last is None or any(link.data == last.data for link in own)):
        return Head(data=data, etag=etag)
    if last is not None:
        damage = "its key was deleted" if data is None else "its key does not continue the numbered entries"
        return Head(data=last.data, etag=etag, damage=damage)
    if data is not None:
        # No entry to compare with: the head counts if it is a record at all.
        _parse(store, state, data)
    return Head(data=data, etag=etag)


def _last_entry(store: Store, state: State) -> Link | None:
    """The latest numbered entry from which the history can be followed to its beginning."""
    keys = sorted((info.key for info in store.list_keys(f"registry/{state}/")), reverse=True)
    for key in keys:
        current = store.read_key(key)
        links = None if current is None else _try_links(store, state, current.data)
        if links and key == entry_key(state, links[0].number):
            return links[0]
    return None


def _try_links(store: Store, state: State, data: bytes) -> list[Link] | None:
    try:
        return read_links(store, state, data)
    except (ObjectCorruptError, ObjectMissingError):
        return None


def _was_registered(store: Store, state: State, release: str) -> bool:
    """Whether an earlier registration says it moved the state: then a key that is not there was deleted."""
    ref = read_ref(store, REGISTRATION, Partition(release=release)).ref
    moved = None if ref is None else read_manifest(store, ref.manifest).stats.get("moved")
    return isinstance(moved, list) and state in moved


def _read_from(store: Store, state: State, release: str, first: bytes) -> list[RegistryRecord]:
    """The records of ``release``, latest first, by its key and the numbered entries; none if the key is wrong."""
    records: list[RegistryRecord] = []
    found = re.fullmatch(rb'{"number":([1-9][0-9]*),"schema":"mm.registered/1"}', first)
    number = int(found[1]) if found else 0
    while (entry := store.read_key(entry_key(state, number))) is not None:
        record = _parse(store, state, entry.data)
        if record.release != release:
            break
        records.append(record)
        number += 1
    return records[::-1]


def _number_of(store: Store, state: State, data: bytes) -> int:
    record = _parse(store, state, data)
    return len(read_links(store, state, data)) if record.sequence == UNNUMBERED else record.sequence


def _walk(store: Store, state: State, data: bytes | None) -> Iterator[tuple[bytes, RegistryRecord]]:
    while data is not None:
        record = _parse(store, state, data)
        yield data, record
        data = _read_previous(store, state, record) if record.previous else None


def _read_previous(store: Store, state: State, record: RegistryRecord) -> bytes:
    """The record before ``record``: its object, or its numbered entry where the object is damaged."""
    digest = str(record.previous)
    try:
        return store.get_bytes(digest)
    except (ObjectMissingError, ObjectCorruptError):
        entry = None if record.sequence < 2 else store.read_key(entry_key(state, record.sequence - 1))
        if entry is None or digest_bytes(entry.data) != digest:
            raise
        return entry.data


def _try_parse(data: bytes) -> RegistryRecord | None:
    try:
        return RegistryRecord.model_validate_json(data)
    except ValidationError:
        return None


def _parse(store: Store, state: State, data: bytes) -> RegistryRecord:
    try:
        record = RegistryRecord.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise ObjectCorruptError(
            f"{store.uri(registry_key(state))}: it or its history holds something that is not a registry record: "
            f"{'.'.join(map(str, first['loc'])) or 'document'}: {first['msg']}. Restore the last good version of it."
        ) from error
    if record.state != state:
        raise ObjectCorruptError(
            f"{store.uri(registry_key(state))}: it or its history holds a record of another state: "
            f"expected {state}, got {record.state}. Restore the last good version of it."
        )
    return record
