"""Decides whether a model may be promoted. Pure: it records a decision and moves nothing (``registry`` does)."""

import json
from collections.abc import Mapping, Sequence

import pyarrow as pa

from mm_assets.evaluation.report import Report, parse_report
from mm_assets.evaluation.rows import read_columns
from mm_assets.identity.canonical import digest_json
from mm_assets.modalities.shapes import modalities_of
from mm_assets.promotion.card import CardFacts, render_card, training_facts
from mm_assets.promotion.comparison import COLUMNS, Comparison, compare_with_champion
from mm_assets.promotion.config import Thresholds
from mm_assets.promotion.decision import DECISION_FILE, Champion, Decision, comparison_record, gate_records
from mm_assets.promotion.gates import judge
from mm_assets.promotion.registry import WEIGHTS
from mm_assets.release.title import dataset_name
from mm_assets.store.commit import OutputFile, StageResult
from mm_assets.store.job import Job
from mm_assets.store.manifest import Input
from mm_assets.store.objects import Store
from mm_assets.store.tables import JSON_TYPE, MARKDOWN_TYPE, read_parquet

CARD_FILE = "README.md"
#: Role of the model in production and of its evaluation; both are absent if there is none.
CHAMPION = "champion"
PREDICTIONS = "predictions.parquet"


def compute_promotion(job: Job) -> StageResult:
    """Judges the evaluation and writes the decision and the model card.

    A rejection is a decision like any other: the partition materializes and the registry stays as it is.
    """
    decision = decide_from(job.store, job.inputs, Thresholds.model_validate(job.params["thresholds"]))
    record = json.loads(job.read("dataset_release", "record.json"))
    metrics = read_parquet(job.fetch("model", "metrics.parquet"), ["loss", "num_samples"])
    card = render_card(
        CardFacts(
            data=dataset_name(record),
            report=_report(job.store, job.inputs),
            decision=decision,
            modalities=modalities_of(json.loads(job.read("model", "config.json"))["layout"]),
            training=training_facts(metrics["loss"].to_pylist(), metrics["num_samples"].to_pylist()),
            num_selected=int(record["coverage"]["num_selected"]),
            sources=record["sources"],
        )
    )
    decision_path, card_path = job.workdir / DECISION_FILE, job.workdir / CARD_FILE
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


def decide_from(store: Store, inputs: Sequence[Input], thresholds: Thresholds) -> Decision:
    """The decision on these inputs, read and verified from the store.

    Raises:
        ObjectMissingError: an input does not exist. ObjectCorruptError: its bytes changed.
    """
    weights, theirs = _digest(inputs, "model", WEIGHTS), _digest(inputs, "model", WEIGHTS, CHAMPION)
    predictions = _digest(inputs, "evaluation", PREDICTIONS)
    champion: Champion | None = None
    champion_predictions: pa.Table | None = None
    if theirs is not None:
        evaluation = _digest(inputs, "evaluation", PREDICTIONS, CHAMPION)
        assert evaluation is not None
        champion = Champion(model=theirs, evaluation=evaluation)
        champion_predictions = read_columns(store, evaluation, list(COLUMNS))
    assert predictions is not None
    comparison = compare_with_champion(
        read_columns(store, predictions, list(COLUMNS)),
        champion_predictions,
        thresholds.production,
        is_same_model=weights == theirs,
    )
    digests = {
        "model": str(weights),
        "dataset_release": str(_digest(inputs, "dataset_release", "samples.parquet")),
        "evaluation": str(_digest(inputs, "evaluation", "report.json")),
    }
    return decide(_report(store, inputs), thresholds, digests, comparison=comparison, champion=champion)


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
        digests: Of the weights (``model``), the table of samples (``dataset_release``) and the report (``evaluation``).
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


def _digest(inputs: Sequence[Input], asset: str, name: str, role: str | None = None) -> str | None:
    """Digest of an object that is read of the only input of that asset and role; None without such an input."""
    return next((entry.digest(name) for entry in inputs if (entry.asset, entry.role) == (asset, role)), None)


def _report(store: Store, inputs: Sequence[Input]) -> Report:
    digest = _digest(inputs, "evaluation", "report.json")
    assert digest is not None
    return parse_report(store.get_bytes(digest), store.object_uri(digest))
