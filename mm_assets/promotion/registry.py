"""The registry: which model is the candidate and which is in production, with everything that was before.

Two keys, ``refs/registry/candidate.json`` and ``refs/registry/production.json``, each moved by one conditional write.
A record names the record before it by digest (kept as an object), so the chain from the key is the whole history.
A promoted model becomes the candidate first and then, if the thresholds say so, the production model; a run killed
between the two ends with the same records when it is repeated.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mm_assets.errors import CommitConflictError, ObjectCorruptError
from mm_assets.identity.canonical import canonical_json
from mm_assets.promotion.decision import read_decision
from mm_assets.releases.spec import read_spec, spec_key
from mm_assets.store.manifest import DIGEST_PATTERN, Manifest
from mm_assets.store.objects import Store

logger = logging.getLogger(__name__)

State = Literal["candidate", "production"]
STATES: tuple[State, State] = ("candidate", "production")
#: How often one writer may lose before it gives up. S3 moves one key about 15 times a second.
MAX_ATTEMPTS = 16


class RegistryRecord(BaseModel):
    """``mm.production/1``: ``model``, ``dataset_release`` and ``decision`` are manifest digests.

    ``previous`` is the digest of the record before this one, or None for the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_: Literal["mm.production/1"] = Field(alias="schema")
    state: State
    release: str
    model: str = Field(pattern=DIGEST_PATTERN)
    dataset_release: str = Field(pattern=DIGEST_PATTERN)
    decision: str = Field(pattern=DIGEST_PATTERN)
    previous: str | None = Field(pattern=DIGEST_PATTERN)

    def encode(self) -> bytes:
        """Canonical bytes; their digest is what the next record calls ``previous``."""
        return canonical_json(self.model_dump(by_alias=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class Applied:
    """What a decision did to the registry: the states it moved, and why not the others."""

    moved: tuple[State, ...]
    reason: str


def registry_key(state: State) -> str:
    """``refs/registry/<state>.json``."""
    return f"refs/registry/{state}.json"


def read_production(store: Store) -> RegistryRecord | None:
    """The model in production, or None.

    Raises:
        ObjectCorruptError: the key holds something else.
    """
    return read_registry(store, "production")


def read_registry(store: Store, state: State) -> RegistryRecord | None:
    """The record of ``state``, or None.

    Raises:
        ObjectCorruptError: the key holds something else.
    """
    return next(read_history(store, state), None)


def read_history(store: Store, state: State) -> Iterator[RegistryRecord]:
    """Every record ``state`` ever had, latest first.

    Raises:
        ObjectCorruptError: a record is something else. ObjectMissingError: an older one is gone.
    """
    current = store.read_key(registry_key(state))
    return _walk(store, state, current.data if current else None)


def apply_decision(store: Store, manifest: Manifest, manifest_digest: str) -> Applied:
    """Registers a promoted model; a rejection, and a decision applied before, move nothing.

    Neither does a release that was superseded: one that a later release followed in the history, or that the
    registered release descends from. So running an old release again, from the cache or not, never moves back.

    Args:
        store: Where the registry is.
        manifest: The committed promotion.
        manifest_digest: Its digest.

    Raises:
        CommitConflictError: others moved the registry all the time; apply the decision again.
        CommitUnknownError: the answer to a write was lost and could not be read back.
    """
    decision = read_decision(store, manifest)
    if decision.state == "none":
        return Applied(moved=(), reason="the decision is a rejection")
    moved: list[State] = []
    reason = f"registered {manifest.partition.release}"
    for state in STATES[: STATES.index(decision.state) + 1]:
        new = RegistryRecord(
            schema="mm.production/1",
            state=state,
            release=manifest.partition.release,
            model=decision.model,
            dataset_release=decision.dataset_release,
            decision=manifest_digest,
            previous=None,
        )
        obstacle = _register(store, new)
        if obstacle is None:
            moved.append(state)
            logger.info("registry %s: moved to %s", state, manifest_digest)
        else:
            reason = obstacle
    return Applied(moved=tuple(moved), reason=reason)


def find_obstacle(store: Store, new: RegistryRecord, history: list[RegistryRecord]) -> str | None:
    """Why ``new`` must not be registered on top of ``history`` (latest first), or None if it may."""
    if any(record.decision == new.decision for record in history):
        return "the decision is registered already"
    if not history or history[0].release == new.release:
        return None
    head = history[0].release
    if any(record.release == new.release for record in history) or new.release in _ancestors(store, head):
        return f"release {new.release} was superseded by {head}"
    return None


def _register(store: Store, new: RegistryRecord) -> str | None:
    key = registry_key(new.state)
    for _ in range(MAX_ATTEMPTS):
        current = store.read_key(key)
        if current is None:
            if store.create_key(key, new.encode()):
                return None
            continue
        obstacle = find_obstacle(store, new, list(_walk(store, new.state, current.data)))
        if obstacle is not None:
            return obstacle
        # The record that is replaced becomes an object first: the chain never names what is not there.
        record = new.model_copy(update={"previous": store.put_bytes(current.data)})
        if store.replace_key(key, record.encode(), current.etag):
            return None
    raise CommitConflictError(
        f"registry {new.state}: others moved it {MAX_ATTEMPTS} times while {new.release} was being registered. "
        "Run the promotion again."
    )


def _walk(store: Store, state: State, data: bytes | None) -> Iterator[RegistryRecord]:
    while data is not None:
        try:
            record = RegistryRecord.model_validate_json(data)
        except ValidationError as error:
            raise ObjectCorruptError(
                f"{store.uri(registry_key(state))}: it or its history holds something that is no registry record. "
                "Restore the last good version of that key."
            ) from error
        yield record
        data = store.get_bytes(record.previous) if record.previous else None


def _ancestors(store: Store, release: str) -> Iterator[str]:
    """The releases that ``release`` adds to, nearest first, as far as their specs exist."""
    while store.read_key(spec_key(release)) is not None:
        parent = read_spec(store, release).parent
        if parent is None:
            return
        yield parent.release
        release = parent.release
