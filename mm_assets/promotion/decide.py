"""Decides whether a model may be promoted. Pure: it records a decision and moves nothing (``registry`` does)."""

import json
from pathlib import Path

from mm_assets.evaluation.report import Report, read_report
from mm_assets.identity.canonical import digest_json
from mm_assets.promotion.card import CardFacts, render_card
from mm_assets.promotion.config import Thresholds
from mm_assets.promotion.decision import DECISION_FILE, Decision, gate_records
from mm_assets.promotion.gates import judge
from mm_assets.settings import Settings
from mm_assets.store.commit import OutputFile, StageResult
from mm_assets.store.manifest import Recipe, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.tables import JSON_TYPE, MARKDOWN_TYPE

CARD_FILE = "README.md"


def compute_promotion(store: Store, recipe: Recipe, workdir: Path, settings: Settings) -> StageResult:
    """Judges the evaluation of ``recipe`` and writes the decision and the model card.

    A rejection is a decision like any other: the partition materializes and the registry stays as it is.
    """
    digests = {entry.asset: entry.digest for entry in recipe.inputs}
    release = read_manifest(store, digests["dataset_release"])
    report = read_report(store, read_manifest(store, digests["evaluation"]))
    decision = decide(report, Thresholds.model_validate(recipe.params["thresholds"]), digests)
    card = render_card(
        CardFacts(
            release=recipe.partition.release,
            report=report,
            decision=decision,
            model=read_manifest(store, digests["model"]),
            dataset_release=release,
            sources=json.loads(store.get_bytes(release.output("record.json").digest))["sources"],
        )
    )
    decision_path, card_path = workdir / DECISION_FILE, workdir / CARD_FILE
    decision_path.write_bytes(decision.encode())
    card_path.write_text(card, encoding="utf-8", newline="\n")
    return StageResult(
        files=(
            OutputFile(name=DECISION_FILE, path=decision_path, media_type=JSON_TYPE),
            OutputFile(name=CARD_FILE, path=card_path, media_type=MARKDOWN_TYPE),
        ),
        stats={
            "decision": decision.decision,
            "state": decision.state,
            "num_gates": len(decision.gates),
            "num_failed_gates": len(decision.failed),
        },
    )


def decide(report: Report, thresholds: Thresholds, digests: dict[str, str]) -> Decision:
    """The decision on a report.

    Args:
        report: What was measured.
        thresholds: What is demanded.
        digests: Manifest digests of ``model``, ``dataset_release`` and ``evaluation``.
    """
    gates = judge(report, thresholds)
    passed = all(gate.passed for gate in gates)
    return Decision(
        schema="mm.decision/1",
        decision="promoted" if passed else "rejected",
        state=thresholds.promote_to if passed else "none",
        model=digests["model"],
        dataset_release=digests["dataset_release"],
        evaluation=digests["evaluation"],
        thresholds=digest_json(thresholds.to_json()),
        gates=gate_records(gates),
    )
