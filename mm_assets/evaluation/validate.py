"""The check of an evaluation: whether its numbers can be believed. ``promotion`` judges how good they are."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from mm_assets.checks.rules import Rules
from mm_assets.checks.validations import Finding
from mm_assets.errors import ObjectCorruptError, ObjectMissingError
from mm_assets.evaluation.report import PREDICTIONS_SCHEMA, Report, read_report, rounded, score
from mm_assets.evaluation.rows import Row, group_key, read_columns, read_rows
from mm_assets.evaluation.slices import Judged, corruption_score, measure_slices
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store

#: Numbers of the report that need not lie in [0, 1].
UNBOUNDED = frozenset({"temperature", "n", "num_samples", "num_labelled", "num_fitted_on", "num_bins", "severity"})


def validate_evaluation(store: Store, manifest: Manifest, rules: Rules) -> tuple[Finding, ...]:
    """Reads the report, the predictions and the model's ledger again and compares them.

    A low score does not fail this check: the promotion's gates judge scores.
    """
    del rules
    try:
        report = read_report(store, manifest)
    except (ObjectMissingError, ObjectCorruptError) as error:
        return (Finding(rule="report_complete", passed=False, detail=str(error)),)
    samples = manifest.input("dataset_release").digest("samples.parquet")
    rows = read_rows(store, samples, report.split)
    predictions = read_columns(store, manifest.output("predictions.parquet").digest)
    ledger = manifest.input("model").digest("ledger.parquet")
    return (
        _check_numbers(report),
        _check_counts(report),
        _check_predictions(report, rows, predictions),
        _check_scores(report, rows, predictions),
        _check_leakage(store, samples, ledger, rows),
    )


def _check_numbers(report: Report) -> Finding:
    wrong = [f"{path} = {value}" for path, value in _numbers(report, "") if not _is_sane(path, value)]
    detail = f"numbers outside their range: {', '.join(wrong[:5])}" if wrong else "every number is in its range"
    return Finding(rule="report_complete", passed=not wrong, detail=detail, num_failing=len(wrong))


def _is_sane(path: str, value: float) -> bool:
    name = path.rpartition(".")[2]
    return math.isfinite(value) and value >= 0 and (value <= 1 or name in UNBOUNDED)


def _numbers(value: object, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _numbers(item, f"{path}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _numbers(item, f"{path}.{index}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, float(value)


def _check_counts(report: Report) -> Finding:
    """Slices share out all samples, and no score counts more labels than there are."""
    wrong: list[str] = []
    totals, labelled = Counter[str](), Counter[str]()
    for entry in report.slices:
        totals[entry.slice] += entry.num_samples
        labelled[entry.slice] += entry.n
    for name in sorted(totals):
        if (totals[name], labelled[name]) != (report.num_samples, report.num_labelled):
            wrong.append(
                f"slice {name}: expected {report.num_samples} samples and {report.num_labelled} labelled, "
                f"got {totals[name]} and {labelled[name]}"
            )
    if report.overall.n != report.num_labelled:
        wrong.append(f"overall: expected {report.num_labelled} labelled samples, got {report.overall.n}")
    for scored in (report.overall, *report.slices, *report.corruptions):
        if (scored.n == 0) != (scored.balanced_accuracy is None):
            wrong.append(f"a score over {scored.n} samples is {scored.balanced_accuracy}")
    detail = "; ".join(wrong[:5]) or f"slices add up to {report.num_samples} samples"
    return Finding(rule="counts_add_up", passed=not wrong, detail=detail, num_failing=len(wrong))


def _check_predictions(report: Report, rows: list[Row], predictions: pa.Table) -> Finding:
    """Every sample of the split has one clean prediction, no other sample has any, and they give the reported score."""
    rule = "predictions_match_split"
    if not predictions.schema.equals(PREDICTIONS_SCHEMA):
        return Finding(rule=rule, passed=False, detail=f"predictions.parquet: has columns {predictions.schema.names}")
    expected = Counter(row.id for row in rows)
    clean = predictions.filter(pa.array(predictions["corruption"].to_numpy() == ""))
    actual = Counter(clean["id"].to_pylist())
    wrong = set((expected - actual) | (actual - expected))
    wrong |= set(predictions["id"].unique().to_pylist()) - set(expected)
    correct = [value for value in clean["correct"].to_pylist() if value is not None]
    accuracy = rounded(float(np.mean(correct))) if correct else None
    if wrong:
        detail = f"{len(wrong)} samples are not predicted exactly once, or are not of split {report.split}"
    elif accuracy != report.overall.accuracy:
        detail = f"accuracy of the predictions: expected {report.overall.accuracy} as reported, got {accuracy}"
    else:
        return Finding(rule=rule, passed=True, detail=f"{len(clean)} samples of split {report.split}, each once")
    return Finding(
        rule=rule, passed=False, detail=detail, num_failing=len(wrong) or 1, failing_ids=tuple(sorted(wrong))
    )


def _check_scores(report: Report, rows: list[Row], predictions: pa.Table) -> Finding:
    """Every score of the report follows from the predictions and the labels of the dataset release."""
    rule = "scores_follow_predictions"
    known = {row.id: row for row in rows}
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {("", 0): []}
    wrong: list[str] = []
    for record in predictions.to_pylist():
        row = known.get(record["id"])
        if row is None or (report.classes and record["predicted"] not in report.classes):
            detail = f"sample {record['id']}: is not of split {report.split}, or is predicted as no class"
            return Finding(rule=rule, passed=False, detail=detail, num_failing=1, failing_ids=(record["id"],))
        is_judged = row.label is not None and bool(report.classes)
        if record["correct"] != (record["predicted"] == row.label if is_judged else None):
            wrong.append(f"sample {row.id}: correct is {record['correct']}, its label {row.label}")
        runs.setdefault((record["corruption"], record["severity"]), []).append(record)
    judged = {key: _judged(report, known, records) for key, records in runs.items()}
    clean = judged.pop(("", 0))
    if score(clean.score()) != report.overall:
        wrong.append(f"overall: expected {score(clean.score())}, got {report.overall}")
    if measure_slices(clean) != report.slices:
        wrong.append("slices differ from those of the predictions")
    position = {row.id: index for index, row in enumerate(clean.rows)}
    alone = sorted({row.id for damaged in judged.values() for row in damaged.rows} - set(position))
    if alone:
        detail = f"{len(alone)} samples are predicted damaged and not undamaged"
        return Finding(rule=rule, passed=False, detail=detail, num_failing=len(alone), failing_ids=tuple(alone))
    measured = {
        key: corruption_score(clean, damaged, [position[row.id] for row in damaged.rows], *key)
        for key, damaged in judged.items()
    }
    reported = {(entry.corruption, entry.severity): entry for entry in report.corruptions if entry.num_samples}
    wrong += [f"{key[0]} {key[1]}: differs" for key in measured if reported.get(key) != measured[key]]
    wrong += [f"{key[0]} {key[1]}: has no predictions" for key in reported if key not in measured]
    detail = "; ".join(wrong[:5]) or "every score is that of the predictions"
    return Finding(rule=rule, passed=not wrong, detail=detail, num_failing=len(wrong))


def _judged(report: Report, rows: dict[str, Row], records: list[dict[str, Any]]) -> Judged:
    classes = tuple(report.classes)
    position = {name: index for index, name in enumerate(classes)}
    probs = np.zeros((len(records), len(classes)))
    if classes:
        probs[np.arange(len(records)), [position[record["predicted"]] for record in records]] = 1.0
    return Judged(rows=[rows[record["id"]] for record in records], probs_BK=probs, classes=classes)


def _check_leakage(store: Store, samples: str, ledger: str, rows: list[Row]) -> Finding:
    """No evaluated sample, and no other sample of its group, was consumed by training."""
    consumed: set[str] = set()
    for chunk in read_columns(store, ledger, ["ids"])["ids"].chunks:
        consumed.update(chunk.flatten().unique().to_pylist())
    members = read_columns(store, samples, ["id", "group"]).to_pylist()
    groups = {group_key(sample["id"], sample["group"]) for sample in members if sample["id"] in consumed} - {None}
    leaked = sorted(row.id for row in rows if row.id in consumed or row.group in groups)
    detail = (
        f"{len(leaked)} evaluated samples, or others of their group, are in the training ledger"
        if leaked
        else f"none of {len(rows)} evaluated samples is in the training ledger of {len(consumed)}"
    )
    return Finding(
        rule="no_leakage", passed=not leaked, detail=detail, num_failing=len(leaked), failing_ids=tuple(leaked)
    )
