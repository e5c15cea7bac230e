"""The registry: which model is the candidate and which is in production, with everything that was before.

Per state one key, ``refs/registry/<state>.json`` (the head), moved by one conditional write. A record names the record
before it by digest. Every record is kept twice more: as an object, and as the numbered entry
``registry/<state>/<sequence>.json``, written once. A record becomes head only after the entry of the one before it
exists, so a head that was deleted, damaged or put back to an older state is recognised and repaired from the entries.

``RegistryRecord`` is the only parser of records. A promoted model becomes the candidate first and then, if the
thresholds say so, the production model; a run killed between the two ends with the same records when it is repeated.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mm_assets.errors import CommitConflictError, ObjectCorruptError, ObjectMissingError
from mm_assets.identity.canonical import canonical_json, digest_bytes
from mm_assets.promotion.decision import Decision, read_decision
from mm_assets.releases.spec import read_spec, spec_key
from mm_assets.store.manifest import DIGEST_PATTERN, Manifest, read_manifest
from mm_assets.store.objects import Store

logger = logging.getLogger(__name__)

State = Literal["candidate", "production"]
STATES: tuple[State, State] = ("candidate", "production")
#: The output of a model that a decision compares.
WEIGHTS = "weights.safetensors"
#: How often one writer may lose before it gives up. S3 moves one key about 15 times a second.
MAX_ATTEMPTS = 16
#: A record of ``mm.production/1``: its place in the history is not written in it.
UNNUMBERED = 0


class RegistryRecord(BaseModel):
    """``mm.production/2``: ``model``, ``dataset_release`` and ``decision`` are manifest digests.

    ``sequence`` counts the records of a state from 1; ``previous`` is the digest of the record before this one, or
    None for the first. A record of ``mm.production/1`` has no ``sequence`` in its bytes and ``UNNUMBERED`` here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_: Literal["mm.production/1", "mm.production/2"] = Field(alias="schema")
    sequence: int = Field(ge=UNNUMBERED)
    state: State
    release: str
    model: str = Field(pattern=DIGEST_PATTERN)
    dataset_release: str = Field(pattern=DIGEST_PATTERN)
    decision: str = Field(pattern=DIGEST_PATTERN)
    previous: str | None = Field(pattern=DIGEST_PATTERN)

    @model_validator(mode="before")
    @classmethod
    def _of_first_version(cls, content: object) -> object:
        if isinstance(content, dict) and content.get("schema") == "mm.production/1" and "sequence" not in content:
            return {**content, "sequence": UNNUMBERED}
        return content

    @model_validator(mode="after")
    def _is_numbered(self) -> "RegistryRecord":
        if (self.schema_ == "mm.production/1") != (self.sequence == UNNUMBERED):
            raise ValueError(f"sequence {self.sequence} does not fit {self.schema_}")
        if self.sequence != UNNUMBERED and (self.sequence == 1) != (self.previous is None):
            raise ValueError(f"record {self.sequence} has previous {self.previous}")
        return self

    def encode(self) -> bytes:
        """Canonical bytes; their digest is what the next record calls ``previous``."""
        omitted = {"sequence"} if self.sequence == UNNUMBERED else set[str]()
        return canonical_json(self.model_dump(by_alias=True, exclude=omitted))


@dataclass(frozen=True, kw_only=True, slots=True)
class Registered:
    """What a registration did: the states it moved, why not the others, and the heads it repaired on the way."""

    moved: tuple[State, ...]
    reason: str
    repaired: tuple[State, ...] = ()


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


def demanded_states(decision: Decision) -> tuple[State, ...]:
    """The states that a decision moves."""
    return () if decision.state == "none" else STATES[: STATES.index(decision.state) + 1]


def registry_key(state: State) -> str:
    """``refs/registry/<state>.json``."""
    return f"refs/registry/{state}.json"


def entry_key(state: State, number: int) -> str:
    """``registry/<state>/<number, 8 digits>.json``."""
    return f"registry/{state}/{number:08d}.json"


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
    head = find_head(store, state)
    return None if head.data is None else _parse(store, state, head.data)


def read_history(store: Store, state: State) -> Iterator[RegistryRecord]:
    """Every record ``state`` ever had, latest first.

    Raises:
        ObjectCorruptError: a record is something else. ObjectMissingError: an older one is gone.
    """
    head = find_head(store, state)
    return (record for _, record in _walk(store, state, head.data))


def register(store: Store, manifest: Manifest, manifest_digest: str) -> Registered:
    """Registers a promoted model; a rejection, and a decision registered before, move nothing.

    Neither does a release that was superseded: one that a later release followed in the history, or that the
    registered release descends from. So running an old release again, from the cache or not, never moves back.
    Damaged heads are repaired in any case.

    Args:
        store: Where the registry is.
        manifest: The committed promotion.
        manifest_digest: Its digest.

    Raises:
        CommitConflictError: others moved the registry all the time, or production moved since the decision was made.
        CommitUnknownError: the answer to a write was lost and could not be read back.
    """
    repaired = repair_registry(store)
    decision = read_decision(store, manifest)
    if decision.state == "none":
        return Registered(moved=(), reason="the decision is a rejection", repaired=repaired)
    moved: list[State] = []
    reason = f"registered {manifest.partition.release}"
    records = [_record(state, manifest, manifest_digest) for state in demanded_states(decision)]
    for new in records:
        # Before the first move, so that a decision that came too late moves nothing at all.
        _find_obstacle_on(store, new, decision, find_head(store, new.state))
    for new in records:
        obstacle = _register(store, new, decision)
        if obstacle is None:
            moved.append(new.state)
            logger.info("registry %s: moved to %s", new.state, manifest_digest)
        else:
            reason = obstacle
    return Registered(moved=tuple(moved), reason=reason, repaired=repaired)


def find_obstacle(store: Store, new: RegistryRecord, history: list[RegistryRecord]) -> str | None:
    """Why ``new`` must not be registered on top of ``history`` (latest first), or None if it may."""
    if any(record.decision == new.decision for record in history):
        return "the decision is registered already"
    if history and is_same_move(history[0], new):
        return "the model is registered already"
    if not history or history[0].release == new.release:
        return None
    head = history[0].release
    if any(record.release == new.release for record in history) or new.release in _ancestors(store, head):
        return f"release {new.release} was superseded by {head}"
    return None


def is_same_move(known: RegistryRecord, new: RegistryRecord) -> bool:
    """Whether two records put the same model of the same release into the same state, by whatever decision."""
    return (known.state, known.release, known.model, known.dataset_release) == (
        new.state,
        new.release,
        new.model,
        new.dataset_release,
    )


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


def _record(state: State, manifest: Manifest, manifest_digest: str) -> RegistryRecord:
    return RegistryRecord(
        schema="mm.production/2",
        sequence=1,
        state=state,
        release=manifest.partition.release,
        model=manifest.input("model").manifest,
        dataset_release=manifest.input("dataset_release").manifest,
        decision=manifest_digest,
        previous=None,
    )


def _find_obstacle_on(
    store: Store, new: RegistryRecord, decision: Decision, head: Head
) -> tuple[str | None, list[Link]]:
    """Why ``new`` must not follow ``head``, or None, and the history up to it.

    Raises:
        CommitConflictError: it may, but what is in production is not what the decision compared its model with.
    """
    links = read_links(store, new.state, head.data)
    obstacle = find_obstacle(store, new, [link.record for link in links])
    if obstacle is None and links and new.state == "production" and decision.schema_ != "mm.decision/1":
        weights = read_manifest(store, links[0].record.model).output(WEIGHTS).digest
        compared = decision.champion.model if decision.champion else None
        if weights not in (compared, decision.model):
            raise CommitConflictError(
                f"registry production: moved since release {new.release} was decided: expected {compared or 'nothing'} "
                f"in production, got {weights} of release {links[0].record.release}. Run the promotion again."
            )
    return obstacle, links


def _register(store: Store, new: RegistryRecord, decision: Decision) -> str | None:
    state = new.state
    for _ in range(MAX_ATTEMPTS):
        head = find_head(store, state)
        if head.damage is not None:
            _put_head_back(store, state, head)
            continue
        obstacle, links = _find_obstacle_on(store, new, decision, head)
        if obstacle is not None:
            return obstacle
        # The entries are complete up to the head before it is replaced: no record can be lost with the key.
        _write_entries(store, state, links)
        update = {"sequence": len(links) + 1, "previous": links[0].digest if links else None}
        record = new.model_copy(update=update)
        store.put_bytes(record.encode())
        if _move(store, state, record.encode(), head.etag):
            store.create_key(entry_key(state, record.sequence), record.encode())
            return None
    raise CommitConflictError(
        f"registry {state}: others moved it {MAX_ATTEMPTS} times while {new.release} was being registered. "
        "Run the registration again."
    )


def _repair(store: Store, state: State) -> bool:
    is_repaired = False
    for _ in range(MAX_ATTEMPTS):
        head = find_head(store, state)
        if head.damage is not None:
            is_repaired = _put_head_back(store, state, head) or is_repaired
            continue
        if head.data is not None:
            record = _parse(store, state, head.data)
            if record.sequence == UNNUMBERED or store.read_key(entry_key(state, record.sequence)) is None:
                _write_entries(store, state, read_links(store, state, head.data))
        return is_repaired
    raise CommitConflictError(
        f"registry {state}: others moved it {MAX_ATTEMPTS} times while it was being repaired. Run it again."
    )


def _put_head_back(store: Store, state: State, head: Head) -> bool:
    if head.data is None or not _move(store, state, head.data, head.etag):
        return False
    logger.warning("registry %s: %s; restored from its numbered entries", state, head.damage)
    return True


def _move(store: Store, state: State, data: bytes, etag: str | None) -> bool:
    key = registry_key(state)
    return store.create_key(key, data) if etag is None else store.replace_key(key, data, etag)


def _write_entries(store: Store, state: State, links: list[Link]) -> None:
    """Writes the numbered entries and objects of a history that are not there yet, oldest first."""
    present = {info.key for info in store.list_keys(f"registry/{state}/")}
    for link in reversed(links):
        key = entry_key(state, link.number)
        if key in present:
            continue
        store.put_bytes(link.data)
        if not store.create_key(key, link.data):
            raise CommitConflictError(f"{store.uri(key)}: holds another record. Run `mm verify`.")


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


def _ancestors(store: Store, release: str) -> Iterator[str]:
    """The releases that ``release`` adds to, nearest first, as far as their specs exist."""
    while store.read_key(spec_key(release)) is not None:
        parent = read_spec(store, release).parent
        if parent is None:
            return
        yield parent.release
        release = parent.release
