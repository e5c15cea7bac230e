"""``mm run``: materializes a release through the same Dagster definitions that the UI loads."""

import argparse

from rich.console import Console

from mm_assets.operations.display import run_with_display
from mm_assets.operations.screen import Outcome
from mm_assets.settings import read_settings
from mm_assets.store.objects import open_store


def run(args: argparse.Namespace, console: Console) -> Outcome:
    """Computes what is missing, reuses what is cached; not ok if a partition or its checks failed."""
    settings = read_settings()
    report, _ = run_with_display(
        console, open_store(settings), settings, release=args.release, stage=args.stage, force=args.force
    )
    result = {
        "release": args.release,
        "computed": report.computed,
        "cached": report.cached,
        "failed": [
            {"asset": failure.asset, "partition": failure.partition.path, "error": failure.sentence}
            for failure in report.failed
        ],
    }
    console.print(f"{report.computed} partitions computed, {report.cached} cached, {len(report.failed)} failed.")
    return Outcome(result=result, ok=not report.failed)
