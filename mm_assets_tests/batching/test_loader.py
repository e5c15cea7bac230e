"""Following a plan: the same batches for any number of threads and processes, and after any resume."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mm_assets.batching.collate import NO_LABEL, Batch, Slot, collate, layout_of
from mm_assets.batching.config import PlanConfig
from mm_assets.batching.loader import PlanLoader
from mm_assets.batching.plan_file import PlanFile
from mm_assets.batching.samples import LocalReader, Sample
from mm_assets.errors import StageError
from mm_assets.features.config import FeaturesConfig
from mm_assets.features.schema import tensors_schema
from mm_assets.store.tables import write_arrow
from mm_assets_tests.batching.conftest import Planning

FEATURES = FeaturesConfig(image_size=16, num_mels=4)
PLAN = PlanConfig(pack_tokens=48, packs_per_lane=2, num_steps=7, window=8, block=2, audio_stack=4)
LAYOUT = layout_of({"pack_tokens": 48, "image_size": 16, "image_patch": 8, "num_mels": 4, "audio_stack": 4})


@pytest.fixture
def reader(tmp_path: Path) -> LocalReader:
    rng = np.random.default_rng(0)
    rows = [
        {
            "id": f"s/d/{index:02d}",
            "text": [1, *rng.integers(4, 260, 3 + index % 5).tolist(), 2],
            "image": rng.integers(0, 256, (16, 16, 3)).astype(np.uint8).tobytes() if index % 3 else None,
            "audio": rng.normal(size=(6 + index % 4, 4)).astype("<f4").tobytes() if index % 2 else None,
        }
        for index in range(20)
    ]
    path = write_arrow(pa.Table.from_pylist(rows, tensors_schema(FEATURES)), tmp_path / "tensors.arrow", batch_rows=4)
    samples = pa.table(
        {
            "id": [row["id"] for row in rows],
            "shard": pa.array([0] * 20, pa.int32()),
            "row": pa.array(range(20), pa.int32()),
            "split": ["train"] * 20,
            "selected": [True] * 20,
            "label": [None if index % 7 == 0 else "ab"[index % 2] for index in range(20)],
            "source": [f"source {index % 2}" for index in range(20)],
            "group": [None if index % 5 == 0 else f"group {index // 4}" for index in range(20)],
            "has_image": [row["image"] is not None for row in rows],
            "text_tokens": pa.array([len(row["text"]) for row in rows], pa.int32()),
            "audio_frames": pa.array([len(row["audio"] or b"") // 16 for row in rows], pa.int32()),
            "video_frames": pa.array([0] * len(rows), pa.int32()),
        }
    )
    return LocalReader(samples, lambda _: path)


@pytest.fixture
def loader(reader: LocalReader, tmp_path: Path) -> PlanLoader:
    plan = PlanFile(Planning(tmp_path, reader.samples, PLAN, seed=1).path)
    return PlanLoader(plan, reader, LAYOUT, {"a": 0, "b": 1})


def is_equal(first: Batch, second: Batch) -> bool:
    arrays = [name for name in Batch.__slots__ if name not in ("schema", "ids", "values")]
    return (
        first.ids == second.ids
        and all(np.array_equal(getattr(first, name), getattr(second, name)) for name in arrays)
        and first.values.keys() == second.values.keys()
        and all(np.array_equal(first.values[name], second.values[name]) for name in first.values)
    )


def all_batches(loader: PlanLoader) -> list[Batch]:
    """Batches by (step, lane)."""
    return [loader.batch(step, lane) for step in range(loader.num_steps) for lane in range(PLAN.num_lanes)]


def test_a_batch_is_the_same_in_whatever_order_batches_are_asked_for(loader: PlanLoader) -> None:
    expected = all_batches(loader)
    assert len(expected) == PLAN.num_lanes * 7
    places = [(step, lane) for step in range(7) for lane in range(PLAN.num_lanes)]
    for (step, lane), batch in reversed(list(zip(places, expected, strict=True))):
        assert is_equal(loader.batch(step, lane), batch)


def test_facts_of_a_step_are_those_of_its_batches(loader: PlanLoader, reader: LocalReader) -> None:
    rows = {row["id"]: row for row in reader.samples.to_pylist()}
    for step in range(loader.num_steps):
        facts = loader.facts(step, PLAN.num_lanes)
        batches = [loader.batch(step, lane) for lane in range(PLAN.num_lanes)]
        assert facts.num_samples == [len(batch.ids) for batch in batches]
        ids = [name for batch in batches for name in batch.ids]
        for first, second in combinations(range(len(ids)), 2):
            one, other = (rows[ids[index]] for index in (first, second))
            # A group is its source's; a sample without one belongs to nothing but itself.
            is_same = one["id"] == other["id"] or (
                one["group"] is not None and (one["source"], one["group"]) == (other["source"], other["group"])
            )
            assert (facts.groups[first] == facts.groups[second]) == is_same


def test_labels_that_are_no_class_are_ignored(loader: PlanLoader, reader: LocalReader) -> None:
    labels = dict(zip(reader.samples["id"].to_pylist(), reader.samples["label"].to_pylist(), strict=True))
    for batch in all_batches(loader):
        expected = [{"a": 0, "b": 1}.get(labels[name], NO_LABEL) for name in batch.ids]
        assert batch.labels_S.tolist() == expected


def test_reader_returns_the_written_tensors(reader: LocalReader) -> None:
    first, second = reader.read([0, 13])
    assert list(first.tensors) == ["text"]
    assert second.id == "s/d/13"
    assert second.tensors["image"].shape == (16, 16, 3)
    assert second.tensors["audio"].shape == (7, 4)


def test_reader_refuses_a_row_that_holds_another_sample(reader: LocalReader) -> None:
    renamed = reader.samples.set_column(0, "id", pa.array([f"x{index}" for index in range(20)]))
    with pytest.raises(StageError, match="expected x3, got s/d/03"):
        LocalReader(renamed, reader.locate).read([3])


def test_collate_names_a_sample_that_changed_since_the_plan() -> None:
    sample = Sample(id="s/d/1", tensors={"text": np.arange(5, dtype=np.int32)})
    with pytest.raises(StageError, match=r"s/d/1: has other tensors than planned: expected \(6, 0, 0, 0\)"):
        collate([[Slot(id="s/d/1", start=0, num_tokens=(6, 0, 0, 0), sample=sample)]], LAYOUT)


def test_collate_refuses_overlapping_slots() -> None:
    slot = Slot(id="s/d/1", start=0, num_tokens=(6, 0, 0, 0), sample=None)
    with pytest.raises(StageError, match="does not fit its slot"):
        collate([[slot, slot]], LAYOUT)
