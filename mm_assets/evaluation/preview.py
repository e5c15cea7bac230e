"""What the UI shows of an evaluation: accuracy by slice, and what damage costs."""

import math

from mm_assets.charts import bar_chart_svg, line_chart_svg, svg_markdown
from mm_assets.evaluation.report import Report, SliceScore, read_report
from mm_assets.evaluation.summary import retrieval_table
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store

MAX_LABELS = 20


def preview(store: Store, manifest: Manifest) -> str:
    """Markdown with a slice chart, a corruption chart and the retrieval table."""
    report = read_report(store, manifest)
    parts = [_headline(report), svg_markdown(_slice_chart(report))]
    if any(entry.balanced_accuracy is not None for entry in report.corruptions):
        parts.append(svg_markdown(_corruption_chart(report)))
    parts.append(retrieval_table(report))
    return "\n\n".join(part for part in parts if part) + "\n"


def _headline(report: Report) -> str:
    overall, calibration = report.overall, report.calibration
    if overall.balanced_accuracy is None:
        return f"**{report.num_samples} samples of split {report.split}, none labelled.**"
    text = (
        f"**Balanced accuracy {overall.balanced_accuracy:.3f}** over {overall.n} labelled samples of split "
        f"{report.split}, {len(report.classes)} classes."
    )
    if calibration.ece is not None:
        text += f" ECE {calibration.ece:.3f}"
        text += (
            f", {calibration.ece_after:.3f} after temperature scaling." if calibration.ece_after is not None else "."
        )
    return text


def _slice_chart(report: Report) -> str:
    overall = report.overall
    bars = [_bar("overall", overall.balanced_accuracy, overall.n, report.num_samples)]
    by_label = [entry for entry in report.slices if entry.slice == "label"]
    for entry in [entry for entry in report.slices if entry.slice != "label"] + by_label[:MAX_LABELS]:
        bars.append(_slice_bar(entry))
    return bar_chart_svg(bars, title=f"Balanced accuracy by slice, split {report.split}", maximum=1.0)


def _slice_bar(entry: SliceScore) -> tuple[str, float, str]:
    prefix = "" if entry.slice == "modalities" else f"{entry.slice}: "
    return _bar(f"{prefix}{entry.value}", entry.balanced_accuracy, entry.n, entry.num_samples)


def _bar(label: str, value: float | None, n: int, num_samples: int) -> tuple[str, float, str]:
    if value is None:
        return label, math.nan, f"{num_samples} without label"
    return label, value, f"{value:.2f} of {n}"


def _corruption_chart(report: Report) -> str:
    """One line per corruption with several severities; severity 0 is the same samples undamaged."""
    highest = max(entry.severity for entry in report.corruptions)
    series: dict[str, list[float]] = {}
    for entry in report.corruptions:
        if entry.balanced_accuracy is None or entry.clean_balanced_accuracy is None:
            continue
        line = series.setdefault(entry.corruption, [entry.clean_balanced_accuracy] + [math.nan] * highest)
        line[entry.severity] = entry.balanced_accuracy
    return line_chart_svg(
        {name: _joined(line) for name, line in series.items()},
        title="Balanced accuracy under damage",
        x_label="severity (0: the same samples undamaged)",
        y_label="balanced accuracy",
    )


def _joined(line: list[float]) -> list[float]:
    """``line`` up to its last measured severity, with straight lines over the severities that were not measured."""
    measured = [index for index, value in enumerate(line) if math.isfinite(value)]
    joined = line[: measured[-1] + 1]
    for left, right in zip(measured, measured[1:], strict=False):
        for index in range(left + 1, right):
            joined[index] = line[left] + (line[right] - line[left]) * (index - left) / (right - left)
    return joined
