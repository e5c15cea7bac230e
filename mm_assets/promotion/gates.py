"""The gates: each a pure function of a report and the thresholds.

A gate that is on and has nothing to judge fails and says what is missing. Two things of the data, and nothing in the
rules, make a gate not apply: no sample is labelled (retrieval is judged then), and a modality that no sample has.
"""

from dataclasses import dataclass
from typing import Literal

from mm_assets.evaluation.config import CORRUPTION_MODALITY
from mm_assets.evaluation.report import CorruptionScore, Report, RetrievalScore
from mm_assets.evaluation.slices import NONE
from mm_assets.promotion.comparison import Comparison
from mm_assets.promotion.config import Corruptions, Disabled, Thresholds

RETRIEVAL_K = 5
UNLABELLED = "no sample is labelled"

Outcome = Literal["passed", "failed", "not_applicable", "disabled"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """One gate's outcome; ``value`` is None where nothing was measured, ``threshold`` where the gate is disabled."""

    name: str
    outcome: Outcome
    value: float | None
    threshold: float | None
    reason: str

    @property
    def passed(self) -> bool:
        """Whether a promotion may go on."""
        return self.outcome != "failed"


def judge(report: Report, thresholds: Thresholds, comparison: Comparison) -> tuple[Gate, ...]:
    """All gates, in a fixed order. The model may be promoted when every one passed."""
    return (
        gate_evidence(report, thresholds),
        gate_overall(report, thresholds),
        gate_slices(report, thresholds),
        gate_calibration(report, thresholds),
        gate_corruptions(report, thresholds),
        gate_retrieval(report, thresholds),
        gate_production(comparison, thresholds),
    )


def is_unlabelled(report: Report) -> bool:
    """Whether neither the model nor the evaluated samples know any label."""
    labels = [entry.value for entry in report.slices if entry.slice == "label" and entry.value != NONE]
    return not report.num_labelled and not report.classes and not labels


def gate_evidence(report: Report, thresholds: Thresholds) -> Gate:
    """Enough labelled samples to judge, or without labels a retrieval pool that is large enough."""
    limits = thresholds.evidence
    if isinstance(limits, Disabled):
        return _disabled("evidence", limits)
    if is_unlabelled(report):
        value = max((entry.n for entry in _pools(report, thresholds)), default=0)
        what = f"samples in the largest retrieval pool; {UNLABELLED}"
    else:
        value, what = report.num_labelled, "labelled samples"
    return Gate(
        name="evidence",
        outcome="passed" if value >= limits.min_samples else "failed",
        value=float(value),
        threshold=float(limits.min_samples),
        reason=f"{value} {what}, at least {limits.min_samples} needed",
    )


def gate_overall(report: Report, thresholds: Thresholds) -> Gate:
    """Balanced accuracy over all labelled samples, which must also be better than guessing one of the classes."""
    name, limits = "overall_balanced_accuracy", thresholds.overall
    if isinstance(limits, Disabled):
        return _disabled(name, limits)
    threshold, value = limits.min_balanced_accuracy, report.overall.balanced_accuracy
    if is_unlabelled(report):
        return _not_applicable(name, threshold, UNLABELLED)
    if value is None:
        return _nothing(name, threshold, "the test split has no labelled sample")
    counted = f"over {report.overall.n} labelled samples"
    chance = 1 / len(report.classes) if len(report.classes) > 1 else 0.0
    if threshold <= value <= chance:
        reason = f"{value:.3f} {counted} is not better than guessing one of the classes, {chance:.3f}"
        return Gate(name=name, outcome="failed", value=value, threshold=threshold, reason=reason)
    return _at_least(name, value, threshold, counted)


def gate_slices(report: Report, thresholds: Thresholds) -> Gate:
    """The worst slice value that holds enough labelled samples."""
    name, limits = "worst_slice_balanced_accuracy", thresholds.slices
    if isinstance(limits, Disabled):
        return _disabled(name, limits)
    if is_unlabelled(report):
        return _not_applicable(name, limits.min_balanced_accuracy, UNLABELLED)
    judged = [
        (entry.balanced_accuracy, f"{entry.slice} {entry.value}, {entry.n} labelled samples")
        for entry in report.slices
        if entry.slice in limits.names and entry.n >= limits.min_count and entry.balanced_accuracy is not None
    ]
    if not judged:
        missing = f"no value of {', '.join(limits.names)} has {limits.min_count} labelled samples"
        return _nothing(name, limits.min_balanced_accuracy, missing)
    value, where = min(judged)
    return _at_least(name, value, limits.min_balanced_accuracy, f"on the worst of {len(judged)} slices: {where}")


def gate_calibration(report: Report, thresholds: Thresholds) -> Gate:
    """Expected calibration error, after temperature scaling where a temperature was fitted."""
    name, limits, measured = "calibration_error", thresholds.calibration, report.calibration
    if isinstance(limits, Disabled):
        return _disabled(name, limits)
    if is_unlabelled(report):
        return _not_applicable(name, limits.max_ece, UNLABELLED)
    is_scaled = measured.ece_after is not None
    value = measured.ece_after if is_scaled else measured.ece
    if value is None:
        return _nothing(name, limits.max_ece, "the evaluation measured no calibration")
    how = "after" if is_scaled else "without"
    return _at_most(name, value, limits.max_ece, f"over {measured.n} labelled samples, {how} temperature scaling")


def gate_corruptions(report: Report, thresholds: Thresholds) -> Gate:
    """The largest loss of balanced accuracy to one of the named corruptions."""
    name, limits = "worst_corruption_drop", thresholds.corruptions
    if isinstance(limits, Disabled):
        return _disabled(name, limits)
    if is_unlabelled(report):
        return _not_applicable(name, limits.max_drop, UNLABELLED)
    present = _present_modalities(report)
    wanted = [corruption for corruption in limits.names if CORRUPTION_MODALITY[corruption] in present]
    if not wanted:
        absent = sorted({CORRUPTION_MODALITY[corruption] for corruption in limits.names})
        return _not_applicable(name, limits.max_drop, f"no sample has {' or '.join(absent)}")
    entries = [entry for entry in report.corruptions if entry.corruption in wanted]
    entries = [entry for entry in entries if entry.severity <= limits.max_severity]
    unmeasured = [corruption for corruption in wanted if corruption not in {entry.corruption for entry in entries}]
    if unmeasured:
        missing = f"the evaluation did not measure {', '.join(unmeasured)} up to severity {limits.max_severity}"
        return _nothing(name, limits.max_drop, missing)
    return _judge_drops(name, limits, entries)


def _judge_drops(name: str, limits: Corruptions, entries: list[CorruptionScore]) -> Gate:
    judged = [
        (
            entry.clean_balanced_accuracy - entry.balanced_accuracy,
            f"{entry.corruption} at severity {entry.severity}, {entry.n} labelled samples",
        )
        for entry in entries
        if entry.n >= limits.min_count
        and entry.balanced_accuracy is not None
        and entry.clean_balanced_accuracy is not None
    ]
    if not judged:
        missing = f"no named corruption was measured on {limits.min_count} labelled samples"
        return _nothing(name, limits.max_drop, missing)
    value, where = max(judged)
    return _at_most(name, round(value, 6), limits.max_drop, f"lost to the worst of {len(judged)} corruptions: {where}")


def gate_retrieval(report: Report, thresholds: Thresholds) -> Gate:
    """Without labels: recall@5 over all directions with a large enough pool, as a multiple of chance."""
    name, limits = "retrieval_lift", thresholds.retrieval
    if isinstance(limits, Disabled):
        return _disabled(name, limits)
    if not is_unlabelled(report):
        return _not_applicable(name, limits.min_lift, "the labels are judged instead")
    pools = _pools(report, thresholds)
    recalls = [entry.recall_at_5 for entry in pools if entry.recall_at_5 is not None]
    chances = [entry.chance_at_5 for entry in pools if entry.chance_at_5 is not None]
    if not recalls or sum(chances) <= 0:
        return _nothing(name, limits.min_lift, f"no retrieval pool has {limits.min_pool} samples")
    value = round(sum(recalls) / sum(chances), 6)
    how = f"times chance, recall@{RETRIEVAL_K} over {len(recalls)} directions"
    return _at_least(name, value, limits.min_lift, how)


def gate_production(comparison: Comparison, thresholds: Thresholds) -> Gate:
    """Not worse than the model in production; a model that cannot be compared with it fails."""
    name, limits = "production_difference", thresholds.production
    if isinstance(limits, Disabled):
        return _disabled(name, limits)
    threshold = -limits.max_loss + 0.0
    if comparison.outcome in ("no_champion", "not_applicable"):
        return _not_applicable(name, threshold, comparison.reason)
    has_passed = comparison.outcome in ("same_model", "not_worse")
    return Gate(
        name=name,
        outcome="passed" if has_passed else "failed",
        value=comparison.difference,
        threshold=threshold,
        reason=comparison.reason,
    )


def _pools(report: Report, thresholds: Thresholds) -> list[RetrievalScore]:
    limits = thresholds.retrieval
    least = 1 if isinstance(limits, Disabled) else limits.min_pool
    return [entry for entry in report.retrieval.values() if entry.n >= least]


def _present_modalities(report: Report) -> set[str]:
    return {part for entry in report.slices if entry.slice == "modalities" for part in entry.value.split("+")}


def _at_least(name: str, value: float, threshold: float, reason: str) -> Gate:
    reason = f"{value:.3f} {reason}, at least {threshold:g} needed"
    outcome = "passed" if value >= threshold else "failed"
    return Gate(name=name, outcome=outcome, value=value, threshold=threshold, reason=reason)


def _at_most(name: str, value: float, threshold: float, reason: str) -> Gate:
    reason = f"{value:.3f} {reason}, at most {threshold:g} allowed"
    outcome = "passed" if value <= threshold else "failed"
    return Gate(name=name, outcome=outcome, value=value, threshold=threshold, reason=reason)


def _nothing(name: str, threshold: float, missing: str) -> Gate:
    return Gate(name=name, outcome="failed", value=None, threshold=threshold, reason=f"nothing to judge: {missing}")


def _not_applicable(name: str, threshold: float, reason: str) -> Gate:
    reason = f"does not apply: {reason}"
    return Gate(name=name, outcome="not_applicable", value=None, threshold=threshold, reason=reason)


def _disabled(name: str, section: Disabled) -> Gate:
    return Gate(name=name, outcome="disabled", value=None, threshold=None, reason=f"disabled: {section.disabled}")
