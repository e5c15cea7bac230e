"""The registry: which model is the candidate and which is in production, moved by decisions only.

A promoted model becomes the candidate first and then, if the thresholds say so, the production model; a run killed
between the two ends with the same records when it is repeated. What the records are and how they are kept is in
``record`` and ``chain``.
"""

import logging
from dataclasses import dataclass

from mm_assets.errors import CommitConflictError
from mm_assets.promotion.chain import (
    MAX_ATTEMPTS,
    Head,
    append,
    find_head,
    head_record,
    put_head_back,
    records_of,
    repair_registry,
)
from mm_assets.promotion.decision import Decision, read_decision
from mm_assets.promotion.record import STATES, RegistryRecord, State, is_same_move
from mm_assets.promotion.superseded import is_superseded, mark_ancestors
from mm_assets.store.manifest import Manifest, read_manifest
from mm_assets.store.objects import Store

logger = logging.getLogger(__name__)

#: The output of a model that a decision compares.
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Registered:
    """What a registration did: the states it moved, why not the others, and the heads it repaired on the way."""

    moved: tuple[State, ...]
    reason: str
    repaired: tuple[State, ...] = ()


def demanded_states(decision: Decision) -> tuple[State, ...]:
    """The states that a decision moves."""
    return () if decision.state == "none" else STATES[: STATES.index(decision.state) + 1]


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


def find_obstacle(store: Store, new: RegistryRecord, head: Head) -> str | None:
    """Why ``new`` must not be registered on top of ``head``, or None if it may."""
    last = head_record(store, new.state, head)
    if last is None:
        return None
    own = records_of(store, new.state, new.release, head)
    if any(record.decision == new.decision for record in own):
        return "the decision is registered already"
    if is_same_move(last, new):
        return "the model is registered already"
    if last.release == new.release:
        return None
    if own or is_superseded(store, new.state, new.release, last=last.release):
        return f"release {new.release} was superseded by {last.release}"
    return None


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


def _find_obstacle_on(store: Store, new: RegistryRecord, decision: Decision, head: Head) -> str | None:
    """Why ``new`` must not follow ``head``, or None.

    Raises:
        CommitConflictError: it may, but what is in production is not what the decision compared its model with.
    """
    obstacle = find_obstacle(store, new, head)
    last = head_record(store, new.state, head)
    if obstacle is None and last is not None and new.state == "production" and decision.schema_ != "mm.decision/1":
        weights = read_manifest(store, last.model).output(WEIGHTS).digest
        compared = decision.champion.model if decision.champion else None
        if weights not in (compared, decision.model):
            raise CommitConflictError(
                f"registry production: moved since release {new.release} was decided: expected {compared or 'nothing'} "
                f"in production, got {weights} of release {last.release}. Run the promotion again."
            )
    return obstacle


def _register(store: Store, new: RegistryRecord, decision: Decision) -> str | None:
    state = new.state
    for _ in range(MAX_ATTEMPTS):
        head = find_head(store, state)
        if head.damage is not None:
            put_head_back(store, state, head)
            continue
        obstacle = _find_obstacle_on(store, new, decision, head)
        if obstacle is not None:
            return obstacle
        last = head_record(store, state, head)
        if last is not None:
            # Complete up to the head before it is replaced, as the chain is.
            mark_ancestors(store, state, last.release)
        if append(store, head, new):
            mark_ancestors(store, state, new.release)
            return None
    raise CommitConflictError(
        f"registry {state}: others moved it {MAX_ATTEMPTS} times while {new.release} was being registered. "
        "Run the registration again."
    )
