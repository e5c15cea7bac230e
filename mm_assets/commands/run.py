"""``mm run``: materializes a release through the same Dagster definitions that the UI loads."""

import argparse
from collections.abc import Mapping

from rich.console import Console

from mm_assets.identity.canonical import Json
from mm_assets.operations.display import run_with_display
from mm_assets.operations.run_release import RunRequest
from mm_assets.operations.screen import Outcome
from mm_assets.settings import read_settings
from mm_assets.store.objects import open_store


def run(args: argparse.Namespace, console: Console) -> Outcome:
    """Computes what is missing, reuses what is cached; not ok if a partition or its checks failed."""
    settings = read_settings()
    request = RunRequest(release=args.release, stages=tuple(args.stage), force=args.force, parallel=args.parallel)
    # Before an embedded store is started for a stage that does not exist.
    request.assets()
    report, _ = run_with_display(console, open_store(settings), settings, request)
    result = {
        "release": args.release,
        "computed": report.computed,
        "cached": report.cached,
        "failed": [
            {"asset": failure.asset, "partition": failure.partition.path, "error": failure.sentence}
            for failure in report.failed
        ],
        "registered": report.registered,
    }
    console.print(f"{report.computed} partitions computed, {report.cached} cached, {len(report.failed)} failed.")
    if report.registered is not None:
        console.print(registration_sentence(report.registered), markup=False)
    return Outcome(result=result, ok=not report.failed)


def registration_sentence(registered: Mapping[str, Json]) -> str:
    """What the release moved in the registry, or why it moved nothing."""
    moved = registered.get("moved")
    if isinstance(moved, list) and moved:
        return f"Registered: {', '.join(str(name) for name in moved)} now point at this release's model."
    return f"The registry did not move: {registered.get('reason') or 'no reason is recorded'}."
