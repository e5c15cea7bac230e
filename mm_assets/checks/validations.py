"""Outcomes of checks: which data were checked, by which rules, and what was found.

An outcome is kept by (asset, content, inputs, rules), so equal data under equal rules are checked once, in whatever
release they are. A later stage requires a passed outcome under the rules in force; a manual run cannot do without.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mm_assets.errors import ObjectCorruptError
from mm_assets.identity.canonical import canonical_json, digest_hex, digest_json
from mm_assets.store.manifest import DIGEST_PATTERN, Manifest
from mm_assets.store.objects import Store

MAX_FAILING_IDS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One rule's outcome; ``failing_ids`` names at most ``MAX_FAILING_IDS`` samples or objects it fails for."""

    rule: str
    passed: bool
    detail: str
    num_failing: int = 0
    failing_ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What an outcome is about.

    Attributes:
        asset: Whose check it is.
        content: Content of the partition.
        inputs: Digest of the objects it was made from, which checks compare it with.
        rules: Digest of the checking code and the rules files.
    """

    asset: str
    content: str
    inputs: str | None
    rules: str

    @property
    def key(self) -> str:
        """``checks/<asset>/<digest hex>.json``."""
        return f"checks/{self.asset}/{digest_hex(digest_json(self))}.json"


class ValidationRecord(BaseModel):
    """``mm.validation/2`` as stored under ``Subject.key``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal["mm.validation/2"] = Field(alias="schema")
    asset: str
    content: str = Field(pattern=DIGEST_PATTERN)
    inputs: str | None = Field(pattern=DIGEST_PATTERN)
    rules: str = Field(pattern=DIGEST_PATTERN)
    passed: bool
    findings: list[dict[str, object]]

    @property
    def subject(self) -> Subject:
        """What it is about."""
        return Subject(asset=self.asset, content=self.content, inputs=self.inputs, rules=self.rules)

    @property
    def failures(self) -> str:
        """The details of the failed rules, as one clause."""
        return "; ".join(str(finding["detail"]).rstrip(".") for finding in self.findings if not finding["passed"])


def record_validation(store: Store, subject: Subject, findings: Sequence[Finding]) -> ValidationRecord:
    """Writes what was found about ``subject``. A failed outcome is replaced when the check is made again.

    Raises:
        ValueError: there are no findings: a check without findings has not passed.
    """
    if not findings:
        raise ValueError(f"{subject.asset}: its check returned no findings: expected at least one")
    record = ValidationRecord(
        schema="mm.validation/2",
        asset=subject.asset,
        content=subject.content,
        inputs=subject.inputs,
        rules=subject.rules,
        passed=all(finding.passed for finding in findings),
        findings=[_finding_json(finding) for finding in findings],
    )
    data = canonical_json(record.model_dump(by_alias=True))
    while not store.create_key(subject.key, data):
        current = store.read_key(subject.key)
        if current is not None and store.replace_key(subject.key, data, current.etag):
            break
    return record


def add_findings(record: ValidationRecord, findings: Sequence[Finding]) -> ValidationRecord:
    """An outcome with findings about more than its subject, which are not kept with it."""
    return record.model_copy(
        update={
            "passed": record.passed and all(finding.passed for finding in findings),
            "findings": [*record.findings, *map(_finding_json, findings)],
        }
    )


def read_validation(store: Store, subject: Subject) -> ValidationRecord | None:
    """The outcome about ``subject``, or None if no check was made.

    Raises:
        ObjectCorruptError: the key holds something else, or an outcome about something else.
    """
    current = store.read_key(subject.key)
    if current is None:
        return None
    try:
        record = ValidationRecord.model_validate(json.loads(current.data))
    except (ValidationError, ValueError) as error:
        raise ObjectCorruptError(
            f"{store.uri(subject.key)}: is not the outcome of a check. Delete it and run the check again."
        ) from error
    has_passed = bool(record.findings) and all(finding["passed"] for finding in record.findings)
    if record.subject != subject or record.passed != has_passed:
        raise ObjectCorruptError(
            f"{store.uri(subject.key)}: is the outcome of another check, or contradicts itself. "
            "Delete it and run the check again."
        )
    return record


def passed_in_first_version(store: Store, manifest: Manifest, digest: str) -> bool:
    """Whether the first version recorded a passed check of exactly this manifest of its own.

    Args:
        store: Where the record is.
        manifest: A manifest that the first version wrote.
        digest: Its digest.
    """
    current = store.read_key(f"refs/validations/{manifest.asset}/{manifest.partition.path}.json")
    if current is None:
        return False
    record = json.loads(current.data)
    seen = (record.get("schema"), record.get("manifest"), record.get("passed"))
    return seen == ("mm.validation/1", digest, True)


def _finding_json(finding: Finding) -> dict[str, object]:
    return {
        "rule": finding.rule,
        "passed": finding.passed,
        "detail": finding.detail,
        "num_failing": finding.num_failing,
        "failing_ids": list(finding.failing_ids[:MAX_FAILING_IDS]),
    }
