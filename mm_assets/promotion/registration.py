"""Moving the registry as a promotion decided."""

import logging

from mm_assets.identity.canonical import Json, canonical_json
from mm_assets.promotion.chain import find_head, head_record, records_of
from mm_assets.promotion.decision import read_decision
from mm_assets.promotion.reachable import verify_reachable
from mm_assets.promotion.record import STATES, State
from mm_assets.promotion.registry import demanded_states, register
from mm_assets.store.commit import OutputFile, StageResult
from mm_assets.store.job import Job
from mm_assets.store.manifest import Manifest, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.tables import JSON_TYPE

logger = logging.getLogger(__name__)

REGISTRATION_FILE = "registration.json"


def compute_registration(job: Job) -> StageResult:
    """Moves the registry as the decision says, once everything it makes reachable was re-hashed.

    Its output says which states hold the decision, or held it before others followed: the same however often it is
    repeated. The outcome of one run is in the log.

    Raises:
        ObjectCorruptError: an object that the registry would name has other bytes; nothing was moved.
        ObjectMissingError: such an object does not exist; nothing was moved.
        CommitConflictError: others moved the registry all the time.
    """
    digest = job.inputs_of("promotion")[0].manifest
    promotion = read_manifest(job.store, digest)
    decision = read_decision(job.store, promotion)
    if decision.state != "none":
        for output in promotion.outputs:
            job.store.check_object(output.digest, size_bytes=output.size_bytes)
        # What it was compared with is not made reachable by it: the champion was verified when it was registered.
        num_objects = verify_reachable(job.store, [entry.manifest for entry in promotion.inputs if entry.role is None])
        logger.info("registration %s: %d objects re-hashed", promotion.partition.release, num_objects)
    outcome = register(job.store, promotion, digest)
    logger.info("registration %s: moved %s: %s", promotion.partition.release, outcome.moved, outcome.reason)
    holds = [state for state in STATES if holds_decision(job.store, state, promotion, digest)]
    missing = [state for state in demanded_states(decision) if state not in holds]
    reason = outcome.reason if missing or not holds else f"registered for {' and '.join(holds)}"
    document: dict[str, Json] = {
        "schema": "mm.registration/1",
        "decision": decision.decision,
        "state": decision.state,
        "moved": holds,
        "reason": reason,
    }
    path = job.workdir / REGISTRATION_FILE
    path.write_bytes(canonical_json(document))
    return StageResult(
        files=(OutputFile(name=REGISTRATION_FILE, path=path, media_type=JSON_TYPE),),
        stats={"moved": holds, "reason": reason},
    )


def holds_decision(store: Store, state: State, promotion: Manifest, digest: str) -> bool:
    """Whether the state's history has this decision, or another one for the same model of the same release."""
    release = promotion.partition.release
    moved = (release, promotion.input("model").manifest, promotion.input("dataset_release").manifest)
    head = find_head(store, state)
    last = head_record(store, state, head)
    # The last record counts whatever release it says it is of.
    return any(
        record.decision == digest or (record.release, record.model, record.dataset_release) == moved
        for record in (*([last] if last else []), *records_of(store, state, release, head))
    )
