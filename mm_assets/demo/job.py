"""The main job: build two drops once, push them, open a release of it and materialize everything.

Every step is idempotent: a second run finds the drop in the store, the release open and every partition cached.
"""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from mm_assets.configurations import ReleaseRequest, open_named_release
from mm_assets.demo.data import CAPTURED_FROM, CAPTURED_TO, DROP, NUM_EMOJI, SEED, SOURCE, USE, build_demo_drop
from mm_assets.demo.films import SOURCE as FILMS
from mm_assets.demo.films import build_films_drop
from mm_assets.demo.report import (
    AssetSummary,
    print_decision,
    print_evaluation,
    print_stages,
    summarize,
)
from mm_assets.drops.create import push_drop
from mm_assets.drops.record import drop_key
from mm_assets.errors import UsageError
from mm_assets.evaluation.report import read_report
from mm_assets.identity.canonical import Json
from mm_assets.materialize import Workspace
from mm_assets.operations.display import run_with_display
from mm_assets.operations.run_release import RunRequest
from mm_assets.operations.screen import Outcome, progress_bar
from mm_assets.promotion.chain import read_production
from mm_assets.promotion.decision import read_decision
from mm_assets.releases.spec import read_spec, spec_key
from mm_assets.settings import Settings
from mm_assets.store.objects import Store, open_store

#: Also of a smaller drop: several shards show how they are scheduled and repaired.
NUM_SHARDS = 4
RELEASE_ASSETS = ("dataset_release", "batch_plan", "model", "evaluation")


def run_demo(console: Console, settings: Settings, *, release: str, num_emoji: int = NUM_EMOJI) -> Outcome:
    """The whole demo; not ok if a partition or its check failed.

    Args:
        console: Where a person watches.
        settings: Where the store and the Dagster instance are.
        release: Name of the release to open.
        num_emoji: Size of the drop, if it is not in the store yet.
    """
    started = time.monotonic()
    store = open_store(settings)
    request = demo_request(release, settings)
    _require_own_data(store, request)
    _ensure_drops(console, settings, store, num_emoji)
    if store.read_key(spec_key(release)) is not None:
        # An older version opened the demo's release without a use.
        request = replace(request, use=None)
    open_named_release(Workspace(settings, store), request)
    report, timeline = run_with_display(console, store, settings, RunRequest(release=release))
    summaries = summarize(store, read_spec(store, release))
    console.print()
    print_stages(console, summaries, timeline)
    decision = _print_outcome(console, store, summaries)
    production = read_production(store)
    result: dict[str, Json] = {"release": release}
    result |= {name: summaries[name].digest for name in RELEASE_ASSETS}
    result |= {
        "decision": decision,
        "production": production.model if production else None,
        "num_samples": summaries["snapshot"].total("rows_in") or 0,
        "num_dead_letters": sum(summaries[name].total("dead_letters") or 0 for name in ("snapshot", "features")),
        "computed": report.computed,
        "cached": report.cached,
        "wall_s": round(time.monotonic() - started, 1),
    }
    _print_next(console, settings, store, result)
    return Outcome(result=result, ok=not report.failed)


def demo_request(release: str, settings: Settings) -> ReleaseRequest:
    """What the demo opens."""
    num_shards = min(NUM_SHARDS, settings.num_shards)
    drops = ((SOURCE, DROP), (FILMS, DROP))
    return ReleaseRequest(release=release, drops=drops, num_shards=num_shards, use=USE)


def _require_own_data(store: Store, request: ReleaseRequest) -> None:
    """Refuses a release of the demo's name that has other drops, as the demo of an older version had.

    Raises:
        UsageError: it has.
    """
    if store.read_key(spec_key(request.release)) is None:
        return
    opened, expected = (
        ", ".join(sorted(f"{source}/{drop}" for source, drop in drops))
        for drops in (((pin.source, pin.drop) for pin in read_spec(store, request.release).drops), request.drops)
    )
    if opened != expected:
        raise UsageError(
            f"release {request.release}: is open with other data than today's demo: expected {expected}, got {opened}. "
            f"Run `mm demo --release {request.release}-2`, which opens another one beside it."
        )


def _ensure_drops(console: Console, settings: Settings, store: Store, num_emoji: int) -> None:
    def build(folder: Path) -> None:
        with progress_bar(console, "speaking names") as show:
            build_demo_drop(folder, num_emoji=num_emoji, on_progress=show)

    def film(folder: Path) -> None:
        build_films_drop(folder, DROP, num_emoji=num_emoji, seed=SEED, captured=(CAPTURED_FROM, CAPTURED_TO))

    for source, write in ((SOURCE, build), (FILMS, film)):
        where = store.uri(drop_key(source, DROP))
        if store.read_key(drop_key(source, DROP)) is not None:
            console.print(f"The drop is in the store: {where}", markup=False, soft_wrap=True)
            continue
        settings.home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="demo-drop-", dir=settings.home) as name:
            write(Path(name))
            push_drop(store, Path(name))
        console.print(f"Pushed the drop: {where}", markup=False, soft_wrap=True)


def _print_outcome(console: Console, store: Store, summaries: Mapping[str, AssetSummary]) -> str | None:
    """Prints evaluation and decision as far as they exist; returns the decision."""
    if summaries["evaluation"].manifests:
        print_evaluation(console, read_report(store, summaries["evaluation"].manifests[0]))
    if not summaries["promotion"].manifests:
        return None
    decision = read_decision(store, summaries["promotion"].manifests[0])
    print_decision(console, decision)
    return decision.decision


def _print_next(console: Console, settings: Settings, store: Store, result: Mapping[str, Json]) -> None:
    console.print(
        f"{result['computed']} partitions computed, {result['cached']} cached, {result['wall_s']} s. "
        f"Store: {store.uri('')}"
        + (f" under {settings.home}, `mm store env` prints how to reach it." if settings.is_embedded else ""),
        markup=False,
    )
    console.print("Open the UI with `make ui` (or `mm ui`), then Assets or Runs. `mm --help` lists what else there is.")
