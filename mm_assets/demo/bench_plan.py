"""What a batch plan costs: microseconds of CPU a sample, memory, and how full its packs are.

Lengths are drawn: half of the samples have a picture, half of them sound, and texts have 8 to 300 tokens.
"""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mm_assets.batching.config import PhaseConfig, PlanConfig
from mm_assets.batching.plan import read_planned, write_plan
from mm_assets.demo.figures import Figure, peak_mb

SIZES = (250_000, 1_000_000)
FULL_SIZE = 10_000_000
LANGUAGES = ("en", "de", "fr")
ROWS = 1 << 20
PLAN = PlanConfig(num_lanes=8, pack_tokens=4096, packs_per_lane=2, num_steps=None)
MIXED = (PhaseConfig(group_by="language", temperature=2.0, weights={"de": 2.0}),)


def measure_plans(folder: Path, *, is_full: bool) -> list[Figure]:
    """The figures of plans of growing releases; each is made in a process of its own, whose memory is measured."""
    folder.mkdir(parents=True)
    figures: list[Figure] = []
    for num_samples in (*SIZES, FULL_SIZE) if is_full else SIZES:
        path = folder / f"{num_samples}.parquet"
        draw_lengths(path, num_samples)
        done = subprocess.run(
            [sys.executable, "-m", "mm_assets.demo.bench_plan", str(path)], check=True, capture_output=True, text=True
        )
        figures += [
            Figure(
                what=f"plan of {num_samples:,} samples{', mixed by language' if is_mixed else ''}",
                value=f"{made['us']:.2f} us a slot",
                detail=f"{made['wall_s']:.1f} s, {made['resident_mb']:.0f} MB, padding {made['padding']:.4%}",
            )
            for is_mixed, made in enumerate(json.loads(done.stdout))
        ]
    return figures


def draw_lengths(path: Path, num_samples: int) -> None:
    """Writes the columns of ``samples.parquet`` that a plan reads."""
    rng = np.random.default_rng(0)
    writer: pq.ParquetWriter | None = None
    for first in range(0, num_samples, ROWS):
        rows = min(ROWS, num_samples - first)
        kind = rng.random(rows)
        table = pa.table(
            {
                "id": [f"web/2026-11/{number:09d}" for number in range(first, first + rows)],
                "split": np.where(rng.random(rows) < 0.8, "train", "test").astype(object),
                "selected": rng.random(rows) < 0.95,
                "language": np.array(LANGUAGES, object)[rng.integers(0, len(LANGUAGES), rows)],
                "has_image": kind < 0.5,
                "text_tokens": rng.integers(8, 300, rows).astype(np.int32),
                "audio_frames": np.where(kind > 0.5, rng.integers(40, 1200, rows), 0).astype(np.int32),
                "video_frames": np.zeros(rows, np.int32),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    if writer:
        writer.close()


def main() -> int:
    """Plans one release twice, without and with weights, and prints what that cost."""
    source = Path(sys.argv[1])
    made: list[dict[str, float]] = []
    for phases in ((), MIXED):
        config = replace(PLAN, phases=phases)
        wall, cpu = time.perf_counter(), time.process_time()
        planned = read_planned(source, config, image_size=128, video_size=64)
        summary = write_plan(planned, config, 1, source.with_suffix(".plan"))
        num_slots, efficiency = int(str(summary["num_slots"])), float(str(summary["padding_efficiency"]))
        made.append(
            {
                "us": (time.process_time() - cpu) / num_slots * 1e6,
                "wall_s": time.perf_counter() - wall,
                "resident_mb": peak_mb(),
                "padding": 1 - efficiency,
            }
        )
    sys.stdout.write(json.dumps(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
