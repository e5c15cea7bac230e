"""Whether a decision is what its evidence and the thresholds say. A rejection can be sound."""

from pydantic import ValidationError

from mm_assets.checks.rules import Rules
from mm_assets.checks.validations import Finding
from mm_assets.errors import ObjectCorruptError, ObjectMissingError
from mm_assets.identity.canonical import digest_json
from mm_assets.promotion.config import THRESHOLDS_FILE, Thresholds, parse_thresholds
from mm_assets.promotion.decide import CARD_FILE, decide_from
from mm_assets.promotion.decision import Decision, read_decision
from mm_assets.promotion.record import RegistryRecord
from mm_assets.promotion.registry import demanded_states
from mm_assets.store.manifest import Manifest, read_manifest
from mm_assets.store.objects import Store


def validate_promotion(store: Store, manifest: Manifest, rules: Rules) -> tuple[Finding, ...]:
    """Decides again from the pinned inputs and compares with what was stored."""
    try:
        decision = read_decision(store, manifest)
        return (
            _check_decision(store, manifest, decision),
            _check_rules(decision, rules),
            _check_card(store, manifest),
        )
    except (ObjectMissingError, ObjectCorruptError) as error:
        return (Finding(rule="decision_follows_gates", passed=False, detail=str(error)),)


def _check_decision(store: Store, manifest: Manifest, decision: Decision) -> Finding:
    rule = "decision_follows_gates"
    try:
        thresholds = Thresholds.model_validate(manifest.params["thresholds"])
    except ValidationError as error:
        detail = f"its thresholds are not of this version: {error.errors()[0]['msg']}. Run the promotion again."
        return Finding(rule=rule, passed=False, detail=detail)
    expected = decide_from(store, manifest.inputs, thresholds)
    if expected != decision:
        different = sorted(name for name, value in expected if value != getattr(decision, name))
        detail = f"decided again, these fields differ: {', '.join(different)}"
        return Finding(rule=rule, passed=False, detail=detail, num_failing=len(different))
    failed = "; ".join(f"{gate.name}: {gate.reason}" for gate in decision.failed)
    disabled = "; ".join(f"{gate.name} {gate.reason}" for gate in decision.gates if gate.outcome == "disabled")
    detail = f"{decision.decision}: {failed or 'no gate failed'}" + (f"; {disabled}" if disabled else "")
    return Finding(rule=rule, passed=True, detail=detail)


def _check_rules(decision: Decision, rules: Rules) -> Finding:
    """The thresholds it was decided by are the ones in force."""
    rule = "decided_by_rules_in_force"
    in_force = digest_json(parse_thresholds(rules.read(THRESHOLDS_FILE), THRESHOLDS_FILE).to_json())
    sound = decision.thresholds == in_force
    detail = f"thresholds {decision.thresholds}: expected {in_force}, which are in force"
    return Finding(rule=rule, passed=sound, detail="decided by the rules in force" if sound else detail)


def _check_card(store: Store, manifest: Manifest) -> Finding:
    card = store.get_bytes(manifest.output(CARD_FILE).digest).decode("utf-8")
    sound = card.startswith("---\n") and manifest.input("model").digest("weights.safetensors") in card
    detail = (
        "the model card has metadata and names the model" if sound else "the model card lacks its metadata or model"
    )
    return Finding(rule="model_card", passed=sound, detail=detail)


def decision_problem(store: Store, record: RegistryRecord) -> str | None:
    """Why a record is not what its decision says, or its decision not what its evidence says; None if all agree.

    Damaged objects are left to the walk over all objects.
    """
    try:
        manifest = read_manifest(store, record.decision)
        if manifest.asset != "promotion":
            return f"its decision {record.decision} is {manifest.asset} {manifest.partition.path}: expected a promotion"
        decision = read_decision(store, manifest)
        named = {name: manifest.input(name).manifest for name in ("model", "dataset_release")}
    except (ObjectMissingError, ObjectCorruptError) as error:
        return f"its decision cannot be read: {error}"
    if record.state not in demanded_states(decision):
        return f"its decision {record.decision} says {decision.decision} to {decision.state}: expected {record.state}"
    for name, digest in named.items():
        if getattr(record, name) != digest:
            return f"its {name} is {getattr(record, name)}: expected {digest}, which its decision is about"
    if record.release != manifest.partition.release:
        return f"its release is {record.release}: expected {manifest.partition.release}, which its decision is about"
    if decision.schema_ == "mm.decision/1":
        # The first version's evidence has another form; its own check was the last to decide it again.
        return None
    return _evidence_problem(store, manifest, decision)


def _evidence_problem(store: Store, manifest: Manifest, decision: Decision) -> str | None:
    try:
        expected = decide_from(store, manifest.inputs, Thresholds.model_validate(manifest.params["thresholds"]))
    except (ObjectMissingError, ObjectCorruptError):
        return None
    except (KeyError, ValidationError):
        return f"decision {decision.decision} names no thresholds that it could be decided by again"
    for name in ("decision", "state", "model", "dataset_release", "evaluation", "champion"):
        if getattr(expected, name) != getattr(decision, name):
            return f"its decision does not follow from its evidence: {name} differs when it is decided again"
    return None
