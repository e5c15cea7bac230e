"""``mm diff`` as one HTML page: tables and charts, nothing that has to be loaded."""

import json
from collections.abc import Iterable, Sequence
from html import escape

from mm_assets.charts import bar_chart_svg
from mm_assets.identity.canonical import Json
from mm_assets.lineage.diff import Change, DiffReport, Metric

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #1f1f1e }
table { border-collapse: collapse; margin: .5rem 0 2rem; width: 100% }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #e8e7e3; vertical-align: top }
td { overflow-wrap: anywhere } td:first-child { overflow-wrap: normal } th { font-weight: 600 }
.number { text-align: right; font-variant-numeric: tabular-nums } .worse { color: #b3261e } .better { color: #146c2e }
"""


def diff_page(report: DiffReport) -> str:
    """The page."""
    first, second = report.first, report.second
    parts = [
        f"<h1>{_text(first)} and {_text(second)}</h1>",
        "<h2>Balanced accuracy on the test split</h2>",
        _metrics(report),
        "<h2>Samples</h2>",
        f"<p>{report.num_same} samples are in both alike.</p>",
        _table((first, second, "samples", "for example"), [
            (entry.first, entry.second, entry.count, ", ".join(entry.ids[:5])) for entry in report.samples
        ]),
        bar_chart_svg(
            [(f"{entry.first} to {entry.second}", float(entry.count), str(entry.count)) for entry in report.samples],
            title=f"Samples by what they are in {first} and in {second}",
            maximum=max((entry.count for entry in report.samples), default=1),
        ),
        "<h2>What they pin</h2>",
        _changes(report.settings, first, second),
        "<h2>Code and environment</h2>",
        _changes(report.made_by, first, second),
    ]  # fmt: skip
    title = f"{_text(first)} and {_text(second)}"
    return (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{title}</title>"
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _metrics(report: DiffReport) -> str:
    if not report.metrics:
        return "<p>Not both were evaluated.</p>"
    numbers = (report.first, report.second, "shared samples", "difference", "95 % interval")
    head = "<th>slice</th><th>value</th>" + "".join(f"<th class='number'>{_text(name)}</th>" for name in numbers)
    table = f"<table><tr>{head}</tr>{''.join(_metric(entry) for entry in report.metrics)}</table>"
    bars = [
        (entry.value or entry.slice, value or 0.0, f"{score_text(value)} {name}")
        for entry in report.metrics
        if entry.slice in ("overall", "modalities")
        for name, value in ((report.first, entry.first), (report.second, entry.second))
    ]
    return table + bar_chart_svg(bars, title="Balanced accuracy, overall and by modalities", maximum=1.0)


def _metric(entry: Metric) -> str:
    kind = ""
    if entry.interval is not None and (entry.interval[1] < 0 or entry.interval[0] > 0):
        kind = " worse" if entry.interval[1] < 0 else " better"
    cells = (
        score_text(entry.first, entry.num_first),
        score_text(entry.second, entry.num_second),
        str(entry.num_shared),
    )
    numbers = "".join(f"<td class='number'>{cell}</td>" for cell in cells)
    return (
        f"<tr><td>{_text(entry.slice)}</td><td>{_text(entry.value)}</td>{numbers}"
        f"<td class='number{kind}'>{difference_text(entry.difference)}</td>"
        f"<td class='number'>{interval_text(entry.interval)}</td></tr>"
    )


def score_text(value: float | None, number: int | None = None) -> str:
    """A score, with the number of samples it stands on."""
    shown = "-" if value is None else f"{value:.3f}"
    return shown if number is None else f"{shown} ({number})"


def difference_text(value: float | None) -> str:
    """A difference with its sign."""
    return "-" if value is None else f"{value:+.3f}"


def interval_text(interval: tuple[float, float] | None) -> str:
    """``-0.012 to +0.034``."""
    return "-" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}"


def value_text(value: Json) -> str:
    """A setting as a person reads it."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _changes(changes: Sequence[Change], first: str, second: str) -> str:
    if not changes:
        return "<p>The same.</p>"
    rows = ((entry.name, value_text(entry.first), value_text(entry.second)) for entry in changes)
    return _table(("what", first, second), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{_text(name)}</th>' for name in head)}</tr>{body}</table>" if body else ""


def _text(value: object) -> str:
    return escape(str(value))
