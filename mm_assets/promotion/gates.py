"""The gates: each a pure function of a report and the thresholds.

A gate whose metric was not measured does not apply: it passes, with no value and the reason why. What it leaves
unjudged is covered by ``evidence``, which refuses a decision nothing stands on.
"""

from dataclasses import dataclass

from mm_assets.evaluation.report import Report
from mm_assets.promotion.config import Thresholds

RETRIEVAL_K = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """One gate's outcome; ``value`` is None where it does not apply."""

    name: str
    passed: bool
    value: float | None
    threshold: float
    reason: str


def judge(report: Report, thresholds: Thresholds) -> tuple[Gate, ...]:
    """All gates, in a fixed order. The model may be promoted when every one passed."""
    return (
        gate_evidence(report, thresholds),
        gate_overall(report, thresholds),
        gate_slices(report, thresholds),
        gate_calibration(report, thresholds),
        gate_corruptions(report, thresholds),
        gate_retrieval(report, thresholds),
    )


def gate_evidence(report: Report, thresholds: Thresholds) -> Gate:
    """Enough labelled samples to judge, or without labels a retrieval pool that is large enough."""
    if report.num_labelled:
        value, what = report.num_labelled, "labelled samples"
    else:
        pools = [entry.n for entry in report.retrieval.values() if entry.n >= thresholds.retrieval.min_pool]
        value, what = max(pools, default=0), "samples in the largest retrieval pool; no sample is labelled"
    needed = thresholds.evidence.min_samples
    return Gate(
        name="evidence",
        passed=value >= needed,
        value=float(value),
        threshold=float(needed),
        reason=f"{value} {what}, at least {needed} needed",
    )


def gate_overall(report: Report, thresholds: Thresholds) -> Gate:
    """Balanced accuracy over all labelled samples."""
    return _at_least(
        "overall_balanced_accuracy",
        report.overall.balanced_accuracy,
        thresholds.overall.min_balanced_accuracy,
        f"over {report.overall.n} labelled samples",
        "no sample is labelled",
    )


def gate_slices(report: Report, thresholds: Thresholds) -> Gate:
    """The worst slice value that holds enough labelled samples."""
    limits = thresholds.slices
    judged = [
        (entry.balanced_accuracy, f"{entry.slice} {entry.value}, {entry.n} labelled samples")
        for entry in report.slices
        if entry.slice in limits.names and entry.n >= limits.min_count and entry.balanced_accuracy is not None
    ]
    value, where = min(judged, default=(None, ""))
    return _at_least(
        "worst_slice_balanced_accuracy",
        value,
        limits.min_balanced_accuracy,
        f"on the worst of {len(judged)} slices: {where}",
        f"no slice has {limits.min_count} labelled samples",
    )


def gate_calibration(report: Report, thresholds: Thresholds) -> Gate:
    """Expected calibration error, after temperature scaling where a temperature was fitted."""
    measured = report.calibration
    scaled = measured.ece_after is not None
    return _at_most(
        "calibration_error",
        measured.ece_after if scaled else measured.ece,
        thresholds.calibration.max_ece,
        f"over {measured.n} labelled samples, {'after' if scaled else 'without'} temperature scaling",
        "no sample is labelled",
    )


def gate_corruptions(report: Report, thresholds: Thresholds) -> Gate:
    """The largest loss of balanced accuracy to one of the named corruptions."""
    limits = thresholds.corruptions
    judged = [
        (
            entry.clean_balanced_accuracy - entry.balanced_accuracy,
            f"{entry.corruption} at severity {entry.severity}, {entry.n} labelled samples",
        )
        for entry in report.corruptions
        if entry.corruption in limits.names
        and entry.severity <= limits.max_severity
        and entry.n >= limits.min_count
        and entry.balanced_accuracy is not None
        and entry.clean_balanced_accuracy is not None
    ]
    value, where = max(judged, default=(None, ""))
    return _at_most(
        "worst_corruption_drop",
        None if value is None else round(value, 6),
        limits.max_drop,
        f"lost to the worst of {len(judged)} corruptions: {where}",
        f"no named corruption was judged on {limits.min_count} labelled samples",
    )


def gate_retrieval(report: Report, thresholds: Thresholds) -> Gate:
    """Without labels: recall@5 over all directions with a large enough pool, as a multiple of chance."""
    limits = thresholds.retrieval
    pools = [] if report.num_labelled else [e for e in report.retrieval.values() if e.n >= limits.min_pool]
    recalls = [entry.recall_at_5 for entry in pools if entry.recall_at_5 is not None]
    chances = [entry.chance_at_5 for entry in pools if entry.chance_at_5 is not None]
    value = round(sum(recalls) / sum(chances), 6) if recalls and sum(chances) > 0 else None
    return _at_least(
        "retrieval_lift",
        value,
        limits.min_lift,
        f"times chance, recall@{RETRIEVAL_K} over {len(recalls)} directions",
        "the labels are judged instead" if report.num_labelled else f"no pool has {limits.min_pool} samples",
    )


def _at_least(name: str, value: float | None, threshold: float, reason: str, absent: str) -> Gate:
    if value is None:
        return _not_applicable(name, threshold, absent)
    reason = f"{value:.3f} {reason}, at least {threshold:g} needed"
    return Gate(name=name, passed=value >= threshold, value=value, threshold=threshold, reason=reason)


def _at_most(name: str, value: float | None, threshold: float, reason: str, absent: str) -> Gate:
    if value is None:
        return _not_applicable(name, threshold, absent)
    reason = f"{value:.3f} {reason}, at most {threshold:g} allowed"
    return Gate(name=name, passed=value <= threshold, value=value, threshold=threshold, reason=reason)


def _not_applicable(name: str, threshold: float, reason: str) -> Gate:
    return Gate(name=name, passed=True, value=None, threshold=threshold, reason=f"does not apply: {reason}")
