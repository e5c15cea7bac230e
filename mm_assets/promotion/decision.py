"""The decision as it is stored: which model, on what evidence, by which thresholds, and what every gate said."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mm_assets.errors import ObjectCorruptError
from mm_assets.identity.canonical import canonical_json
from mm_assets.promotion.gates import Gate
from mm_assets.store.manifest import DIGEST_PATTERN, Manifest
from mm_assets.store.objects import Store

DECISION_FILE = "decision.json"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GateRecord(_Record):
    """One gate's outcome."""

    name: str
    passed: bool
    value: float | None
    threshold: float
    reason: str


class Decision(_Record):
    """``mm.decision/1``. ``state`` is where the model goes: nowhere (``none``) when a gate failed."""

    schema_: Literal["mm.decision/1"] = Field(alias="schema")
    decision: Literal["promoted", "rejected"]
    state: Literal["production", "candidate", "none"]
    model: str = Field(pattern=DIGEST_PATTERN)
    dataset_release: str = Field(pattern=DIGEST_PATTERN)
    evaluation: str = Field(pattern=DIGEST_PATTERN)
    thresholds: str = Field(pattern=DIGEST_PATTERN)
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
        GateRecord(name=gate.name, passed=gate.passed, value=gate.value, threshold=gate.threshold, reason=gate.reason)
        for gate in gates
    ]


def read_decision(store: Store, manifest: Manifest) -> Decision:
    """The decision of a promotion.

    Raises:
        ObjectMissingError: the manifest has none. ObjectCorruptError: it is not one.
    """
    digest = manifest.output(DECISION_FILE).digest
    try:
        return Decision.model_validate_json(store.get_bytes(digest))
    except ValidationError as error:
        first = error.errors()[0]
        raise ObjectCorruptError(
            f"{store.object_uri(digest)}: is not a decision: {'.'.join(map(str, first['loc']))}: {first['msg']}. "
            "Run the promotion again."
        ) from error
