"""What `make bench` times beside the stages: what is not computed again, shards in parallel, and looking things up.

Every figure is taken by running ``mm`` as a user does, in a home of its own, or by counting calls of the store.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mm_assets.configurations import ReleaseRequest, open_named_release
from mm_assets.demo.data import DROP, SOURCE, USE
from mm_assets.demo.figures import Figure
from mm_assets.drops.create import create_drop, push_drop
from mm_assets.launchers.environment import stage_environment
from mm_assets.materialize import Workspace, partitions_of
from mm_assets.pipeline import ASSETS
from mm_assets.settings import Settings, worker_environment

NUM_SHARDS = 64
SAMPLES_PER_SHARD = 4
SHARD_STAGES = tuple(dict.fromkeys(asset.stage for asset in ASSETS.values() if asset.is_sharded))


def measure_experiments(settings: Settings, release: str) -> list[Figure]:
    """Runs that share the demo's data: which assets they compute, and how long they take."""
    cases = {
        "same release again": None,
        "same drop, another release name": ["--drop", f"{SOURCE}/{DROP}", "--use", USE],
        "experiment: another configuration (smoke)": ["--data-of", release, "--config", "smoke"],
        "experiment: another curation policy": ["--data-of", release, "--policy", "clean"],
    }
    figures: list[Figure] = []
    for number, (what, options) in enumerate(cases.items()):
        name = release if options is None else f"bench-{number}"
        if options is not None:
            _mm(settings, "release", "open", "--release", name, *options)
        started = time.monotonic()
        # The policy alone changes here: training on it again is what the first run timed.
        stage = ["--stage", "release"] if options and "--policy" in options else []
        report = _mm(settings, "run", "--release", name, *stage)
        seconds = time.monotonic() - started
        counts = f"{report['computed']} computed, {report['cached']} cached"
        figures.append(Figure(what=what, value=f"{seconds:.1f} s", detail=counts))
    return figures


def measure_parallel(settings: Settings, folder: Path) -> list[Figure]:
    """Wall time of the demo's shards, one at a time and two at a time, in turn, each on a Dagster home of its own."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for attempt in range(3):
        for parallel in seconds:
            name = f"parallel-{attempt}-{parallel}"
            own = replace(settings, dagster_home=folder / name)
            _mm(own, "release", "open", "--release", name, "--drop", f"{SOURCE}/{DROP}", "--use", USE)
            started = time.monotonic()
            stages = [word for stage in SHARD_STAGES for word in ("--stage", stage)]
            _mm(own, "run", "--release", name, *stages, "--force", "--parallel", str(parallel))
            seconds[parallel].append(time.monotonic() - started)
    ratio = min(seconds[2]) / min(seconds[1])
    return [
        Figure(
            what="shards of the demo, --parallel 2 against 1",
            value=f"{ratio:.2f}",
            detail=f"{min(seconds[2]):.1f} s against {min(seconds[1]):.1f} s, the better of {len(seconds[1])} each",
        )
    ]


def measure_current(settings: Settings, folder: Path) -> list[Figure]:
    """CPU seconds, calls and writes per shard of a run on shards that are all current."""
    workspace = Workspace(replace(settings, num_shards=NUM_SHARDS))
    _push_small_drop(workspace, folder)
    request = ReleaseRequest(
        release="current", drops=(("bench", "small"),), configuration="smoke", num_shards=NUM_SHARDS
    )
    spec = open_named_release(workspace, request)
    assets = [asset for asset in ASSETS.values() if asset.is_sharded]
    for asset in assets:
        environment = stage_environment() if asset.is_launched else {}
        for partition in partitions_of(spec, asset):
            workspace.run(asset.name, partition, environment=environment)
            workspace.check(asset.name, partition)
    looking = Workspace(workspace.settings)
    calls: list[str] = []
    looking.store.client.meta.events.register("before-call.s3", lambda model, **_: calls.append(model.name))
    started = time.process_time()
    with looking.unchanged():
        for asset in assets:
            environment = stage_environment() if asset.is_launched else {}
            for partition in partitions_of(spec, asset):
                assert looking.find_current(asset.name, partition, environment) is not None
    cpu_s = time.process_time() - started
    writes = sum(not name.startswith(("Get", "Head", "List")) for name in calls)
    return [
        Figure(
            what=f"{NUM_SHARDS} current shards of {len(assets)} assets: store",
            value=f"{cpu_s / NUM_SHARDS:.4f} CPU-s a shard",
            detail=f"{len(calls) / NUM_SHARDS:.1f} calls a shard, {writes} writes",
        )
    ]


def _push_small_drop(workspace: Workspace, folder: Path) -> None:
    folder.mkdir(parents=True)
    rows: list[Mapping[str, Any]] = []
    for number in range(NUM_SHARDS * SAMPLES_PER_SHARD):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"s{number}.png")
        rows.append(
            {"id": f"s{number}", "text": f"sample {number}", "image": f"s{number}.png", "label": "ab"[number % 2]}
        )
    (folder / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    create_drop(folder, "bench", "small")
    push_drop(workspace.store, folder)


def _mm(settings: Settings, *arguments: str) -> dict[str, Any]:
    environment = worker_environment(settings) | {"DAGSTER_HOME": str(settings.dagster_home)}
    answer = subprocess.run(
        [sys.executable, "-m", "mm_assets.cli", *arguments, "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines: Sequence[str] = answer.stdout.splitlines()
    return json.loads(lines[-1])
