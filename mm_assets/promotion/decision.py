"""The decision as it is stored: which model, on what evidence, by which thresholds, and what every gate said."""

import json
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mm_assets.errors import ObjectCorruptError
from mm_assets.identity.canonical import canonical_json
from mm_assets.promotion.comparison import Comparison
from mm_assets.promotion.gates import Gate
from mm_assets.store.manifest import DIGEST_PATTERN, Manifest
from mm_assets.store.objects import Store

DECISION_FILE = "decision.json"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GateRecord(_Record):
    """One gate's outcome; ``passed`` is true unless ``outcome`` is ``failed``."""

    name: str
    outcome: Literal["passed", "failed", "not_applicable", "disabled"]
    passed: bool
    value: float | None
    threshold: float | None
    reason: str


class Champion(_Record):
    """The model in production when the decision was made, and the evaluation it was compared by."""

    model: str = Field(pattern=DIGEST_PATTERN)
    evaluation: str = Field(pattern=DIGEST_PATTERN)


class ComparisonRecord(_Record):
    """Candidate against champion; ``difference`` and ``interval`` are null where nothing was compared (``reason``)."""

    outcome: str
    reason: str
    num_shared: int
    difference: float | None
    interval: tuple[float, float] | None


class Decision(_Record):
    """``mm.decision/2``. ``state`` is where the model goes: nowhere (``none``) when a gate failed.

    ``comparison`` is null in a decision of ``mm.decision/1``, which compared with nothing.
    """

    schema_: Literal["mm.decision/1", "mm.decision/2"] = Field(alias="schema")
    decision: Literal["promoted", "rejected"]
    state: Literal["production", "candidate", "none"]
    model: str = Field(pattern=DIGEST_PATTERN)
    dataset_release: str = Field(pattern=DIGEST_PATTERN)
    evaluation: str = Field(pattern=DIGEST_PATTERN)
    thresholds: str = Field(pattern=DIGEST_PATTERN)
    champion: Champion | None
    comparison: ComparisonRecord | None
    gates: list[GateRecord]

    @property
    def failed(self) -> list[GateRecord]:
        """The gates that failed."""
        return [gate for gate in self.gates if not gate.passed]

    def encode(self) -> bytes:
        """Canonical bytes."""
        return canonical_json(self.model_dump(by_alias=True))


def gate_records(gates: tuple[Gate, ...]) -> list[GateRecord]:
    """Gates as the decision holds them."""
    return [
        GateRecord(
            name=gate.name,
            outcome=gate.outcome,
            passed=gate.passed,
            value=gate.value,
            threshold=gate.threshold,
            reason=gate.reason,
        )
        for gate in gates
    ]


def comparison_record(comparison: Comparison) -> ComparisonRecord:
    """A comparison as the decision holds it."""
    return ComparisonRecord(
        outcome=comparison.outcome,
        reason=comparison.reason,
        num_shared=comparison.num_shared,
        difference=comparison.difference,
        interval=comparison.interval,
    )


def read_decision(store: Store, manifest: Manifest) -> Decision:
    """The decision of a promotion.

    Raises:
        ObjectMissingError: the manifest has none. ObjectCorruptError: it is not a decision.
    """
    digest = manifest.output(DECISION_FILE).digest
    try:
        return Decision.model_validate(_upgraded(json.loads(store.get_bytes(digest))))
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise ObjectCorruptError(_not_a_decision(store, digest, problem)) from error
    except ValueError as error:
        raise ObjectCorruptError(_not_a_decision(store, digest, "not JSON")) from error


def _not_a_decision(store: Store, digest: str, problem: str) -> str:
    return f"{store.object_uri(digest)}: is not a decision: {problem}. Run the promotion again."


def _upgraded(document: Any) -> Any:
    """A decision of ``mm.decision/1`` with the fields that came later."""
    if not isinstance(document, dict) or cast("dict[str, Any]", document).get("schema") != "mm.decision/1":
        return document
    content = cast("dict[str, Any]", document)
    gates = [{**gate, "outcome": _outcome_of(gate)} for gate in content.get("gates", []) if isinstance(gate, dict)]
    return {**content, "champion": None, "comparison": None, "gates": gates}


def _outcome_of(gate: dict[str, Any]) -> str:
    if not gate.get("passed"):
        return "failed"
    return "not_applicable" if gate.get("value") is None else "passed"
