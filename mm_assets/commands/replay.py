"""``mm replay`` and ``mm bisect``: what can be proven about a finished training run."""

import argparse
import secrets
from dataclasses import asdict

from rich.console import Console

from mm_assets.identity.canonical import to_json
from mm_assets.lineage.bisect import bisect_models
from mm_assets.operations.replay_model import ReplayReport, replay_model
from mm_assets.operations.screen import Outcome, print_table, short_digest
from mm_assets.settings import read_settings
from mm_assets.store.objects import open_store

MAX_SEED = 1 << 31
SENTENCES = {
    "BITWISE": "The same bits came out.",
    "TOLERANCE": "Other bits came out, within the tolerance, under the changed facts above.",
    "NOT_COMPARABLE": "Other values came out. The changed facts above may explain them: replay where they hold.",
    "MISMATCH": "Other values came out, and nothing that is known explains them.",
}


def replay(args: argparse.Namespace, console: Console) -> Outcome:
    """Runs segments of a model's training again; ok if the same bits came out, or others within the tolerance."""
    settings = read_settings()
    seed = secrets.randbelow(MAX_SEED) if args.seed is None else args.seed
    report = replay_model(
        open_store(settings),
        args.model,
        num_segments=args.segments,
        seed=seed,
        world_size=args.world_size or settings.world_size,
        cpus=settings.cpus,
        accelerators=settings.accelerators,
        on_segment=lambda segment: console.print(
            f"Training steps {segment.first_step} to {segment.last_step} again.", markup=False
        ),
    )
    _print_report(report, console)
    console.print(f"These segments were chosen by --seed {seed}.")
    result = {
        "model": report.model,
        "verdict": report.verdict,
        "segments": [to_json(asdict(entry)) for entry in report.segments],
        "environment_match": not report.facts,
        "facts": [to_json(asdict(fact)) for fact in report.facts],
        "difference": report.difference,
        "seed": seed,
        "world_size": report.world_size,
    }
    return Outcome(result=result, ok=report.verdict in ("BITWISE", "TOLERANCE"))


def bisect(args: argparse.Namespace, console: Console) -> Outcome:
    """Says why two models differ: what they were made from, and where their trainings part."""
    report = bisect_models(open_store(read_settings()), args.first, args.second)
    rows = [(entry.name, entry.first, entry.second) for entry in report.causes]
    if rows:
        print_table(console, "Made from different things", ("what", args.first, args.second), rows, left=3)
    for part in report.parts:
        console.print(part, markup=False)
    if report.is_equal:
        console.print("Both are the same weights.")
    result = {
        "first": report.first,
        "second": report.second,
        "equal": report.is_equal,
        "causes": [to_json(asdict(entry)) for entry in report.causes],
        "parts": list(report.parts),
        "last_equal_step": report.last_equal_step,
    }
    return Outcome(result=result)


def _print_report(report: ReplayReport, console: Console) -> None:
    if report.facts:
        rows = [(fact.name, str(fact.then), str(fact.now)) for fact in report.facts]
        print_table(console, "Not as it was", ("fact", "then", "now"), rows, left=3)
    rows = [
        (f"{done.first_step} to {done.last_step}", short_digest(done.expected), short_digest(done.actual), done.verdict)
        for done in report.segments
    ]
    if rows:
        print_table(console, "Segments", ("steps", "expected", "actual", "verdict"), rows, left=4)
    style = "green" if report.verdict in ("BITWISE", "TOLERANCE") else "red"
    console.print(f"{report.verdict}: {SENTENCES[report.verdict]}", style=style, markup=False)
    if report.difference:
        console.print(f"First difference: {report.difference}", markup=False)
