"""Runs the model over the held-out split, clean and damaged, and writes the report and every prediction.

Reads only what its action names. Nothing measured here depends on time, so the same model gets the same report.
"""

from collections.abc import Mapping, Sequence

from pydantic import TypeAdapter

from mm_assets.evaluation.calibration import Calibration, measure_calibration
from mm_assets.evaluation.config import EvaluationConfig
from mm_assets.evaluation.pools import measure_retrieval
from mm_assets.evaluation.report import (
    PREDICTIONS_SCHEMA,
    Report,
    calibration_score,
    retrieval_score,
    score,
    write_outputs,
)
from mm_assets.evaluation.retrieval import Recall
from mm_assets.evaluation.rows import read_rows
from mm_assets.evaluation.slices import Judged, corruption_score, measure_slices
from mm_assets.evaluation.subject import Damaged, judge_damaged, load_subject
from mm_assets.store.commit import StageResult
from mm_assets.store.job import Job
from mm_assets.store.tables import table_of
from mm_assets.training.strict import set_strict, verify_environment


def compute_evaluation(job: Job) -> StageResult:
    """Judges the model on the held-out split of its release.

    Raises:
        StageError: the model's outputs are unusable, or this is not the environment of the action.
        ObjectMissingError: an input does not exist. ObjectCorruptError: its bytes changed.
    """
    config = TypeAdapter(EvaluationConfig).validate_python(job.params["config"])
    verify_environment(job.environment)
    set_strict(config.num_threads)
    subject = load_subject(job, config)
    samples = job.digest("dataset_release", "samples.parquet")
    rows = read_rows(job.store, samples, config.split)
    clean, embeddings = subject.judge(rows)
    fitted, _ = subject.judge(read_rows(job.store, samples, config.calibration_split))
    damaged = [
        judge_damaged(subject, rows, corruption, severity, config)
        for corruption in config.corruptions
        for severity in corruption.severities
    ]
    report = make_report(
        config,
        clean=clean,
        damaged=damaged,
        calibration=_calibrate(clean, fitted, config.num_bins),
        retrieval=measure_retrieval(subject.reader, rows, embeddings, config),
    )
    records = [record for run in damaged for record in _records(run.judged, config.split, run.corruption, run.severity)]
    predictions = table_of([*_records(clean, config.split, "", 0), *records], PREDICTIONS_SCHEMA)
    return StageResult(
        files=write_outputs(report, predictions, job.workdir),
        stats={
            "rows_in": len(rows),
            "rows_out": len(predictions),
            "dead_letters": 0,
            "num_labelled": report.num_labelled,
            "accuracy": report.overall.accuracy,
            "balanced_accuracy": report.overall.balanced_accuracy,
            "ece_after": report.calibration.ece_after,
        },
    )


def make_report(
    config: EvaluationConfig,
    *,
    clean: Judged,
    damaged: Sequence[Damaged],
    calibration: Calibration,
    retrieval: Mapping[str, Recall],
) -> Report:
    """The report of these measurements."""
    return Report(
        schema="mm.evaluation/1",
        split=config.split,
        num_samples=len(clean.rows),
        num_labelled=int(clean.labelled.sum()),
        classes=list(clean.classes),
        overall=score(clean.score()),
        slices=measure_slices(clean),
        corruptions=[corruption_score(clean, run.judged, run.indices, run.corruption, run.severity) for run in damaged],
        calibration=calibration_score(calibration, config.num_bins),
        retrieval={name: retrieval_score(measured) for name, measured in retrieval.items()},
    )


def _calibrate(clean: Judged, fitted: Judged, num_bins: int) -> Calibration:
    known, fit = clean.labelled, fitted.labelled
    return measure_calibration(
        clean.probs_BK[known],
        clean.label_ids[known],
        fit_probs_BK=fitted.probs_BK[fit],
        fit_labels_B=fitted.label_ids[fit],
        num_bins=num_bins,
    )


def _records(judged: Judged, split: str, corruption: str, severity: int) -> list[dict[str, object]]:
    predicted, confidence = judged.predicted_ids, judged.probs_BK.max(axis=1, initial=0.0)
    correct, labelled = predicted == judged.label_ids, judged.labelled
    has_classes = bool(judged.classes)
    return [
        {
            "id": row.id,
            "split": split,
            "label": row.label,
            "language": row.language,
            "combination": row.combination,
            "corruption": corruption,
            "severity": severity,
            "predicted": judged.classes[predicted[index]] if has_classes else None,
            "confidence": float(confidence[index]) if has_classes else None,
            "correct": bool(correct[index]) if labelled[index] else None,
        }
        for index, row in enumerate(judged.rows)
    ]
