"""What a freeze and its check cost on drawn key columns: CPU and wall seconds and the highest resident memory.

Each is run in a process of its own, which reports what it took. The store's server is another process and not counted.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mm_assets.checks.rules import Rules
from mm_assets.demo.figures import Figure, peak_mb
from mm_assets.demo.key_columns import KeyColumns, describe, write_shards
from mm_assets.identity.canonical import digest_bytes, to_json
from mm_assets.release.config import PARENT, FreezeConfig
from mm_assets.release.freeze import compute_dataset_release
from mm_assets.release.inputs import PARENT_OUTPUTS, policy_params
from mm_assets.release.kept import ancestors_of, kept_by
from mm_assets.release.validate import validate_dataset_release
from mm_assets.releases.policies import pin_policy
from mm_assets.settings import Settings, read_settings, worker_environment
from mm_assets.store.action import Action
from mm_assets.store.commit import Attempt
from mm_assets.store.embedded import ensure_running
from mm_assets.store.job import Job
from mm_assets.store.manifest import Input, NamedDigest, Partition, read_manifest
from mm_assets.store.objects import Store, open_store

CODE = digest_bytes(b"bench")
#: Samples of the two freezes that are compared, and of those that are only run on request.
SIZES, FULL_SIZES = (100_000, 200_000), (5_000_000, 10_000_000)
SHARD_ROWS = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one process took."""

    wall_s: float
    cpu_s: float
    peak_mb: int
    manifest: str
    content: str


def freeze_action(
    store: Store, inputs: Sequence[Input], *, policy: str = "default", parent: str = "", config: FreezeConfig
) -> Action:
    """The action that freezes shards, as a release would be."""
    every = [*inputs, *describe(store)]
    if parent:
        manifest = read_manifest(store, parent)
        names = [*(o.name for o in manifest.outputs if o.name in PARENT_READS), *kept_by(manifest)]
        every += ancestors_of(manifest)
        every.append(
            Input(
                asset="dataset_release",
                partition=manifest.partition.names,
                manifest=parent,
                outputs=[NamedDigest(name=name, digest=manifest.output(name).digest) for name in names],
                role=PARENT,
            )
        )
    params = {
        "config": to_json(config),
        "policy": policy_params(store, pin_policy(store, policy)),
        "exclusions": [],
        "seed": 7,
    }
    return Action(asset="dataset_release", code=CODE, params=params, environment={}, inputs=tuple(every))


PARENT_READS = (*PARENT_OUTPUTS, "evaluation_keys.parquet")


def measure_freezes(settings: Settings, folder: Path, *, is_full: bool = False) -> list[Figure]:
    """The figures of ``make bench``; ``is_full`` also freezes ten million samples in 1,000 shards."""
    store = open_store(settings)
    small, large = FULL_SIZES if is_full else SIZES
    figures: list[Figure] = []
    costs: dict[int, Cost] = {}
    for size in (small, large):
        inputs = _write(store, folder, size, max(4, size // SHARD_ROWS))
        costs[size] = run_freeze(settings, freeze_action(store, inputs, config=FreezeConfig()), f"keys-{size}")
        figures.append(_figure(f"freeze of {size:,} samples", costs[size], size))
        if size == small:
            figures += _other_freezes(settings, store, folder, inputs, costs[size], size)
    figures.append(_figure(f"check of {large:,} samples", run_check(settings, costs[large].manifest), large))
    ratio = costs[large].cpu_s / costs[small].cpu_s
    detail = f"CPU of {large:,} samples against {small:,}"
    return [*figures, Figure(what="freeze of more samples", value=f"{ratio:.2f} x", detail=detail)]


def _write(store: Store, folder: Path, size: int, num_shards: int, first: int = 0) -> list[Input]:
    wanted = KeyColumns(num_samples=size, num_shards=num_shards, first=first, release=f"keys-{first}-{size}")
    return write_shards(store, wanted, folder / wanted.release)


def _other_freezes(
    settings: Settings, store: Store, folder: Path, inputs: Sequence[Input], whole: Cost, size: int
) -> list[Figure]:
    """Without near duplicates, with another policy, in buckets, and of a child with a hundredth more samples."""
    config = FreezeConfig()
    exact = replace(config, group_near_duplicates=False, drop_near_duplicates=False)
    added = _write(store, folder, size // 100, 4, first=size)
    cases = {
        "freeze by equal keys alone": freeze_action(store, inputs, config=exact),
        "freeze with another policy": freeze_action(store, inputs, config=config, policy="clean"),
        "freeze of a child, 1 % more": freeze_action(store, added, config=config, parent=whole.manifest),
    }
    figures = [
        _figure(what, run_freeze(settings, action, f"{size}-{number}"), size)
        for number, (what, action) in enumerate(cases.items())
    ]
    contents = {whole.content}
    for buckets in (1, 4, 64):
        action = freeze_action(store, inputs, config=config)
        contents.add(run_freeze(settings, action, f"{size}-b{buckets}", buckets=buckets).content)
    figures.append(
        Figure(what="contents of a freeze in 1, 4 and 64 buckets", value=str(len(contents)), detail=sorted(contents)[0])
    )
    return figures


def _figure(what: str, cost: Cost, size: int) -> Figure:
    detail = f"{cost.wall_s:.0f} s, {cost.peak_mb} MB, {cost.cpu_s / size * 1e6:.1f} us of CPU a sample"
    return Figure(what=what, value=f"{cost.cpu_s:.1f} CPU-s", detail=detail)


def run_freeze(settings: Settings, action: Action, release: str, *, buckets: int | None = None) -> Cost:
    """Freezes in a process of its own and commits the result as ``release``."""
    document = {
        "params": dict(action.params),
        "inputs": [entry.model_dump(mode="json") for entry in action.inputs],
        "placement": {} if buckets is None else {"release_buckets": buckets},
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(document, file)
        file.flush()
        return _child(settings, "freeze", file.name, release)


def run_check(settings: Settings, manifest: str) -> Cost:
    """Validates a frozen release in a process of its own."""
    return _child(settings, "check", manifest, "-")


def _child(settings: Settings, work: str, what: str, release: str) -> Cost:
    environment = worker_environment(settings) | ensure_running(settings.home).environment()
    command = [sys.executable, "-m", "mm_assets.demo.bench_freeze", work, what, release]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return Cost(**json.loads(answer.stdout.splitlines()[-1]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one freeze or one check and prints what it took as JSON."""
    parser = argparse.ArgumentParser(prog="bench_freeze", description=__doc__)
    parser.add_argument("work", choices=["freeze", "check"])
    parser.add_argument("what")
    parser.add_argument("release")
    args = parser.parse_args(arguments)
    store = open_store(read_settings())
    wall, cpu = time.monotonic(), time.process_time()
    if args.work == "freeze":
        manifest, content = _freeze(store, json.loads(Path(args.what).read_text()), args.release)
    else:
        manifest, content = _check(store, args.what)
    report = Cost(
        wall_s=round(time.monotonic() - wall, 2),
        cpu_s=round(time.process_time() - cpu, 2),
        peak_mb=peak_mb(),
        manifest=manifest,
        content=content,
    )
    sys.stdout.write(json.dumps(to_json(report)) + "\n")
    return 0


def _freeze(store: Store, document: dict[str, Any], release: str) -> tuple[str, str]:
    action = Action(
        asset="dataset_release",
        code=CODE,
        params=document["params"],
        environment={},
        inputs=tuple(Input.model_validate(entry) for entry in document["inputs"]),
    )
    attempt = Attempt(store, action, Partition(release=release))
    with tempfile.TemporaryDirectory(prefix="mm-freeze-") as folder:
        result = compute_dataset_release(
            Job(store=store, action=action, workdir=Path(folder), placement=document["placement"])
        )
        committed = attempt.commit_result(result)
    return committed.manifest_digest, committed.manifest.content


def _check(store: Store, digest: str) -> tuple[str, str]:
    manifest = read_manifest(store, digest)
    findings = validate_dataset_release(store, manifest, Rules(digests={}, load=lambda name: b""))
    failed = [finding.detail for finding in findings if not finding.passed]
    if failed:
        raise SystemExit("; ".join(failed))
    return digest, manifest.content


if __name__ == "__main__":
    sys.exit(main())
