"""Decides whether a model may be promoted. Pure: it records a decision and moves nothing (``registry`` does)."""

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from mm_assets.evaluation.report import Report, read_report
from mm_assets.evaluation.rows import read_columns
from mm_assets.identity.canonical import digest_json
from mm_assets.promotion.card import CardFacts, render_card
from mm_assets.promotion.comparison import COLUMNS, Comparison, compare_with_champion
from mm_assets.promotion.config import Thresholds
from mm_assets.promotion.decision import DECISION_FILE, Champion, Decision, comparison_record, gate_records
from mm_assets.promotion.gates import judge
from mm_assets.settings import Settings
from mm_assets.store.commit import OutputFile, StageResult
from mm_assets.store.manifest import Input, Manifest, Recipe, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.tables import JSON_TYPE, MARKDOWN_TYPE

CARD_FILE = "README.md"
#: Names of the inputs that hold the model in production and its evaluation; both are absent if there is none.
CHAMPION_MODEL, CHAMPION_EVALUATION = "champion_model", "champion_evaluation"


def compute_promotion(store: Store, recipe: Recipe, workdir: Path, settings: Settings) -> StageResult:
    """Judges the evaluation of ``recipe`` and writes the decision and the model card.

    A rejection is a decision like any other: the partition materializes and the registry stays as it is.
    """
    digests = _digests(recipe.inputs)
    release = read_manifest(store, digests["dataset_release"])
    decision = decide_from(store, recipe.inputs, Thresholds.model_validate(recipe.params["thresholds"]))
    card = render_card(
        CardFacts(
            release=recipe.partition.release,
            report=read_report(store, read_manifest(store, digests["evaluation"])),
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
            "num_disabled_gates": sum(gate.outcome == "disabled" for gate in decision.gates),
        },
    )


def decide_from(store: Store, inputs: "tuple[Input, ...] | list[Input]", thresholds: Thresholds) -> Decision:
    """The decision on these inputs, read and verified from the store.

    Raises:
        ObjectMissingError: an input does not exist. ObjectCorruptError: its bytes changed.
    """
    digests = _digests(inputs)
    evaluation = read_manifest(store, digests["evaluation"])
    champion = None
    theirs: pa.Table | None = None
    is_same_model = False
    if CHAMPION_MODEL in digests:
        champion = Champion(model=digests[CHAMPION_MODEL], evaluation=digests[CHAMPION_EVALUATION])
        theirs = _predictions(store, read_manifest(store, champion.evaluation))
        models = [read_manifest(store, digest) for digest in (digests["model"], champion.model)]
        is_same_model = _weights(models[0]) == _weights(models[1])
    comparison = compare_with_champion(
        _predictions(store, evaluation), theirs, thresholds.production, is_same_model=is_same_model
    )
    return decide(read_report(store, evaluation), thresholds, digests, comparison=comparison, champion=champion)


def decide(
    report: Report,
    thresholds: Thresholds,
    digests: Mapping[str, str],
    *,
    comparison: Comparison,
    champion: Champion | None,
) -> Decision:
    """The decision on a report.

    Args:
        report: What was measured.
        thresholds: What is demanded.
        digests: Digests of ``model``, ``dataset_release`` and ``evaluation``.
        comparison: The model against the one in production.
        champion: The model in production, or None.
    """
    gates = judge(report, thresholds, comparison)
    passed = all(gate.passed for gate in gates)
    return Decision(
        schema="mm.decision/2",
        decision="promoted" if passed else "rejected",
        state=thresholds.promote_to if passed else "none",
        model=digests["model"],
        dataset_release=digests["dataset_release"],
        evaluation=digests["evaluation"],
        thresholds=digest_json(thresholds.to_json()),
        champion=champion,
        comparison=comparison_record(comparison),
        gates=gate_records(gates),
    )


def _digests(inputs: "tuple[Input, ...] | list[Input]") -> dict[str, str]:
    return {entry.asset: entry.digest for entry in inputs}


def _predictions(store: Store, evaluation: Manifest) -> pa.Table:
    return read_columns(store, evaluation, "predictions.parquet", list(COLUMNS))


def _weights(model: Manifest) -> str:
    return model.output("weights.safetensors").digest
