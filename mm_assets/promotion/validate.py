"""Whether a decision is what its evidence and the thresholds say, and the registry agrees. A rejection can be sound."""

from mm_assets.checks.validations import Finding
from mm_assets.errors import ObjectCorruptError, ObjectMissingError
from mm_assets.evaluation.report import read_report
from mm_assets.identity.canonical import digest_bytes
from mm_assets.promotion.config import Thresholds
from mm_assets.promotion.decide import CARD_FILE, decide
from mm_assets.promotion.decision import Decision, read_decision
from mm_assets.promotion.registry import STATES, RegistryRecord, find_obstacle, read_history
from mm_assets.settings import Settings
from mm_assets.store.manifest import Manifest, read_manifest
from mm_assets.store.objects import Store


def validate_promotion(store: Store, manifest: Manifest, settings: Settings) -> tuple[Finding, ...]:
    """Decides again from the pinned inputs and compares with what was stored and registered."""
    try:
        decision = read_decision(store, manifest)
    except (ObjectMissingError, ObjectCorruptError) as error:
        return (Finding(rule="decision_follows_gates", passed=False, detail=str(error)),)
    return (
        _check_decision(store, manifest, decision),
        _check_card(store, manifest),
        _check_registry(store, manifest, decision),
    )


def _check_decision(store: Store, manifest: Manifest, decision: Decision) -> Finding:
    digests = {entry.asset: entry.digest for entry in manifest.inputs}
    report = read_report(store, read_manifest(store, digests["evaluation"]))
    expected = decide(report, Thresholds.model_validate(manifest.params["thresholds"]), digests)
    if expected != decision:
        different = sorted(name for name, value in expected if value != getattr(decision, name))
        detail = f"decided again, these fields differ: {', '.join(different)}"
        return Finding(rule="decision_follows_gates", passed=False, detail=detail, num_failing=len(different))
    failed = "; ".join(f"{gate.name}: {gate.reason}" for gate in decision.failed)
    detail = f"{decision.decision}: {failed}" if failed else f"{decision.decision}: every gate passed"
    return Finding(rule="decision_follows_gates", passed=True, detail=detail)


def _check_card(store: Store, manifest: Manifest) -> Finding:
    card = store.get_bytes(manifest.output(CARD_FILE).digest).decode("utf-8")
    sound = card.startswith("---\n") and manifest.input("model").digest in card
    detail = (
        "the model card has metadata and names the model" if sound else "the model card lacks its metadata or model"
    )
    return Finding(rule="model_card", passed=sound, detail=detail)


def _check_registry(store: Store, manifest: Manifest, decision: Decision) -> Finding:
    """A promoted model is in the history of every state it was promoted to (or superseded); a rejected one in none."""
    digest = digest_bytes(manifest.encode())
    demanded = () if decision.state == "none" else STATES[: STATES.index(decision.state) + 1]
    wrong: list[str] = []
    for state in STATES:
        history = list(read_history(store, state))
        registered = any(record.decision == digest for record in history)
        if state in demanded and not registered and not _is_superseded(store, manifest, decision, history):
            wrong.append(f"{state}: the promoted model is not registered")
        if state not in demanded and registered:
            wrong.append(f"{state}: the model is registered although the decision is {decision.decision}")
    detail = "; ".join(wrong) or f"registered for {', '.join(demanded) or 'nothing'}, as decided"
    return Finding(rule="registry_agrees", passed=not wrong, detail=detail, num_failing=len(wrong))


def _is_superseded(store: Store, manifest: Manifest, decision: Decision, history: list[RegistryRecord]) -> bool:
    if not history:
        return False
    own = history[0].model_copy(
        update={"release": manifest.partition.release, "decision": digest_bytes(manifest.encode())}
    )
    return find_obstacle(store, own, history) is not None
