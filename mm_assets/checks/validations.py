"""The record of a gate: which manifest was checked, by which rules, and what was found.

A check writes it, the next stage requires it: ``require_passed`` is why no manual run walks around a failed gate.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mm_assets.errors import GateError, ObjectCorruptError
from mm_assets.identity.canonical import canonical_json
from mm_assets.store.manifest import DIGEST_PATTERN, Partition
from mm_assets.store.objects import Store
from mm_assets.store.refs import Ref, require_ref

MAX_FAILING_IDS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One rule's outcome; ``failing_ids`` names at most ``MAX_FAILING_IDS`` samples or objects it fails for."""

    rule: str
    passed: bool
    detail: str
    num_failing: int = 0
    failing_ids: tuple[str, ...] = ()


class ValidationRecord(BaseModel):
    """``mm.validation/1`` as stored under ``refs/validations/<asset>/<release>[/<shard>].json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal["mm.validation/1"] = Field(alias="schema")
    asset: str
    release: str
    shard: str | None
    manifest: str = Field(pattern=DIGEST_PATTERN)
    rules: str = Field(pattern=DIGEST_PATTERN)
    passed: bool
    findings: list[dict[str, object]]


def validation_key(asset: str, partition: Partition) -> str:
    """``refs/validations/<asset>/<release>[/<shard>].json``."""
    return f"refs/validations/{asset}/{partition.path}.json"


def record_validation(store: Store, ref: Ref, *, rules: str, findings: Sequence[Finding]) -> ValidationRecord:
    """Writes what was found about the manifest ``ref`` points to; the latest validation of a partition counts.

    Args:
        store: Where to write.
        ref: The partition as it was checked.
        rules: Digest of the checking code and of the suite or policy it applied.
        findings: One per rule.
    """
    record = ValidationRecord(
        schema="mm.validation/1",
        asset=ref.asset,
        release=ref.release,
        shard=ref.shard,
        manifest=ref.manifest,
        rules=rules,
        passed=all(finding.passed for finding in findings),
        findings=[_finding_json(finding) for finding in findings],
    )
    key = validation_key(ref.asset, ref.partition)
    data = canonical_json(record.model_dump(by_alias=True))
    while not store.create_key(key, data):
        current = store.read_key(key)
        if current is not None and store.replace_key(key, data, current.etag):
            break
    return record


def read_validation(store: Store, asset: str, partition: Partition) -> ValidationRecord | None:
    """The latest validation of a partition, or None if no check ever ran.

    Raises:
        ObjectCorruptError: the key holds something else.
    """
    key = validation_key(asset, partition)
    current = store.read_key(key)
    if current is None:
        return None
    try:
        return ValidationRecord.model_validate(json.loads(current.data))
    except (ValidationError, ValueError) as error:
        raise ObjectCorruptError(f"{store.uri(key)}: is not a validation record. Run the checks again.") from error


def require_passed(store: Store, asset: str, partition: Partition) -> Ref:
    """The partition's ref, provided a passed validation of exactly that manifest is on record.

    Raises:
        ObjectMissingError: the partition was never materialized.
        GateError: no check ran on this manifest, or one failed.
    """
    ref = require_ref(store, asset, partition)
    record = read_validation(store, asset, partition)
    where = f"{asset} {partition.path}"
    if record is None or record.manifest != ref.manifest:
        raise GateError(
            f"{where}: no validation on record: expected one of {ref.manifest}, "
            f"got {record.manifest if record else 'none'}. Materialize the partition together with its checks."
        )
    if not record.passed:
        failed = "; ".join(str(finding["detail"]) for finding in record.findings if not finding["passed"])
        raise GateError(
            f"{where}: failed its checks: {failed}. Repair the data or the suite and run the partition again."
        )
    return ref


def _finding_json(finding: Finding) -> dict[str, object]:
    return {
        "rule": finding.rule,
        "passed": finding.passed,
        "detail": finding.detail,
        "num_failing": finding.num_failing,
        "failing_ids": list(finding.failing_ids[:MAX_FAILING_IDS]),
    }
