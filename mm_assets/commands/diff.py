"""``mm diff``: two releases or models side by side."""

import argparse
from dataclasses import asdict

from rich.console import Console

from mm_assets.identity.canonical import to_json
from mm_assets.lineage.diff import Change, DiffReport, diff_releases
from mm_assets.lineage.diff_page import diff_page, difference_text, interval_text, score_text, value_text
from mm_assets.operations.screen import Outcome, print_table
from mm_assets.settings import read_settings
from mm_assets.store.objects import open_store

MAX_ROWS = 30


def diff(args: argparse.Namespace, console: Console) -> Outcome:
    """Shows what is not the same: settings, code, environment, samples and scores."""
    report = diff_releases(open_store(read_settings()), args.first, args.second)
    _print_changes(console, "What they pin", report.settings, report)
    _print_changes(console, "Code and environment", report.made_by, report)
    _print_samples(console, report)
    _print_metrics(console, report)
    if args.html is not None:
        args.html.write_text(diff_page(report), encoding="utf-8")
        console.print(f"Written to {args.html}.", markup=False)
    return Outcome(result={name: to_json(value) for name, value in asdict(report).items()})


def _print_changes(console: Console, title: str, changes: tuple[Change, ...], report: DiffReport) -> None:
    rows = [(entry.name, value_text(entry.first), value_text(entry.second)) for entry in changes]
    if rows:
        print_table(console, title, ("what", report.first, report.second), rows[:MAX_ROWS], left=3)
    if len(rows) > MAX_ROWS:
        console.print(f"{len(rows) - MAX_ROWS} more; --json and --html have all.")


def _print_samples(console: Console, report: DiffReport) -> None:
    rows = [(entry.first, entry.second, entry.count, ", ".join(entry.ids[:2])) for entry in report.samples]
    if rows:
        columns = (report.first, report.second, "samples", "for example")
        print_table(console, f"Samples ({report.num_same} are in both alike)", columns, rows[:MAX_ROWS], left=2)
    else:
        console.print(f"Samples: {report.num_same} are in both alike, none otherwise.")


def _print_metrics(console: Console, report: DiffReport) -> None:
    rows = [
        (
            f"{entry.slice} {entry.value}".strip(),
            score_text(entry.first, entry.num_first),
            score_text(entry.second, entry.num_second),
            entry.num_shared,
            difference_text(entry.difference),
            interval_text(entry.interval),
        )
        for entry in report.metrics
    ]
    if rows:
        columns = ("balanced accuracy", report.first, report.second, "shared", "difference", "95 % interval")
        print_table(console, "Test split", columns, rows)
