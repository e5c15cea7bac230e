"""Releases of made-up lengths, and their plans."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mm_assets.batching.config import PlanConfig
from mm_assets.batching.plan import Planned, read_planned, write_plan
from mm_assets.store.tables import write_parquet

SIZES = {"image_size": 16, "video_size": 64}
#: Text tokens, whether there is a picture, audio frames.
Row = tuple[int, bool, int]


def release_of(rows: list[Row], **columns: list[Any]) -> pa.Table:
    """A release's narrow columns; all rows train unless ``columns`` says otherwise."""
    return pa.table(
        {
            "id": [f"s/d/{index:04d}" for index in range(len(rows))],
            "split": ["train"] * len(rows),
            "selected": [True] * len(rows),
            "has_image": pa.array([image for _, image, _ in rows], pa.bool_()),
            "text_tokens": pa.array([text for text, _, _ in rows], pa.int32()),
            "audio_frames": pa.array([frames for _, _, frames in rows], pa.int32()),
            "video_frames": pa.array([0] * len(rows), pa.int32()),
            **columns,
        }
    )


class Planning:
    """One release's plan in a folder."""

    def __init__(self, folder: Path, release: pa.Table, config: PlanConfig, *, seed: int = 0) -> None:
        samples = write_parquet(release, folder / "samples.parquet")
        self.path = folder / "plan.parquet"
        self.planned: Planned = read_planned(samples, config, **SIZES)
        self.summary = write_plan(self.planned, config, seed, self.path)

    @property
    def table(self) -> pa.Table:
        return pq.read_table(self.path)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.table.to_pylist()
