"""Laws of the plan, for any data and parameters."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_assets.batching.config import PlanConfig
from mm_assets.batching.packing import pack_best_fit
from mm_assets.batching.plan import build_plan, summarise
from mm_assets.batching.schedule import Lengths, deal_to_lanes, plan_epoch, schedule
from mm_assets.batching.validate import check_plan
from mm_assets.errors import StageError

IMAGE_SIZE = 16
CONFIG = PlanConfig(pack_tokens=32, packs_per_lane=2, num_steps=None, num_epochs=2, window=16, block=4, audio_stack=4)

samples_strategy = st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.integers(0, 40)), min_size=1, max_size=80)
config_strategy = st.builds(
    PlanConfig,
    num_lanes=st.sampled_from([1, 2, 4, 8]),
    pack_tokens=st.integers(32, 90),
    packs_per_lane=st.integers(1, 3),
    num_steps=st.one_of(st.none(), st.integers(1, 30)),
    num_epochs=st.integers(1, 3),
    window=st.integers(1, 40),
    block=st.integers(1, 9),
    audio_stack=st.just(4),
)


def release_of(rows: list[tuple[int, bool, int]], splits: list[str] | None = None) -> pa.Table:
    return pa.table(
        {
            "id": [f"s/d/{index:04d}" for index in range(len(rows))],
            "split": splits or ["train"] * len(rows),
            "selected": [True] * len(rows),
            "has_image": pa.array([image for _, image, _ in rows], pa.bool_()),
            "text_tokens": pa.array([text for text, _, _ in rows], pa.int32()),
            "audio_frames": pa.array([frames for _, _, frames in rows], pa.int32()),
            "video_frames": pa.array([0] * len(rows), pa.int32()),
        }
    )


def lengths_of(totals: list[int]) -> Lengths:
    zeros = np.zeros(len(totals), np.int64)
    return Lengths(tokens={"text": np.array(totals, np.int64) - 1, "image": zeros, "audio": zeros, "video": zeros})


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(rows=samples_strategy, config=config_strategy, seed=st.integers(0, 1000))
def test_every_plan_passes_its_own_gate_and_is_repeatable(
    rows: list[tuple[int, bool, int]], config: PlanConfig, seed: int
) -> None:
    table = release_of(rows)
    plan = build_plan(table, config, seed=seed, image_size=IMAGE_SIZE, video_size=64)
    findings = check_plan(plan, table, config)
    assert [finding.detail for finding in findings if not finding.passed] == []
    assert plan.equals(build_plan(table, config, seed=seed, image_size=IMAGE_SIZE, video_size=64))
    assert 0.0 < float(str(summarise(plan, config)["padding_efficiency"])) <= 1.0


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(totals=st.lists(st.integers(1, 50), max_size=120))
def test_packing_places_every_item_once_and_never_overfills(totals: list[int]) -> None:
    order = sorted(range(len(totals)), key=lambda index: -totals[index])
    packs = pack_best_fit(totals, order, 50)
    assert sorted(item for pack in packs for item in pack) == list(range(len(totals)))
    assert all(sum(totals[item] for item in pack) <= 50 for pack in packs)
    # No pack could have been saved by merging two: at most one is half empty.
    assert sum(sum(totals[item] for item in pack) * 2 <= 50 for pack in packs) <= 1


def test_best_fit_prefers_the_pack_it_fills() -> None:
    assert pack_best_fit([6, 5, 4, 3], [0, 1, 2, 3], 9) == [[0, 3], [1, 2]]


def test_packing_wastes_less_than_two_percent_of_mixed_lengths() -> None:
    totals = np.random.default_rng(0).integers(10, 200, 4000).tolist()
    order = sorted(range(len(totals)), key=lambda index: -totals[index])
    packs = pack_best_fit(totals, order, 512)
    assert sum(totals) / (512 * len(packs)) > 0.98


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(totals=st.lists(st.integers(1, 30), min_size=1, max_size=200), lanes=st.sampled_from([1, 2, 4, 8]))
def test_lanes_differ_by_less_than_two_samples(totals: list[int], lanes: int) -> None:
    config = PlanConfig(num_lanes=lanes, block=4)
    dealt = deal_to_lanes(np.array(totals), config, seed=1, epoch=0)
    assert sorted(np.concatenate(dealt).tolist()) == list(range(len(totals)))
    work = [sum(totals[index] for index in lane) for lane in dealt]
    assert max(work) - min(work) <= 2 * max(totals)


def test_epochs_and_seeds_give_other_orders() -> None:
    lengths = lengths_of([10] * 64)
    plans = [plan_epoch(lengths, CONFIG, seed=seed, epoch=epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    assert plans[0] != plans[1]
    assert plans[0] != plans[2]


def test_an_epoch_does_not_depend_on_how_many_are_planned() -> None:
    lengths = lengths_of([10] * 64)
    short = list(schedule(lengths, PlanConfig(pack_tokens=32, num_steps=3), 1))
    long = list(schedule(lengths, PlanConfig(pack_tokens=32, num_steps=9), 1))
    assert [step.lanes for step in long[:3]] == [step.lanes for step in short]


def test_samples_of_one_modality_combination_share_packs() -> None:
    # All three modalities, and text alone: 11 + 4 + 10 + 1 tokens against 11 + 1.
    rows = [(11, True, 40), (11, False, 0)] * 16
    table = release_of(rows)
    config = PlanConfig(num_lanes=1, pack_tokens=104, num_steps=1, packs_per_lane=99, audio_stack=4)
    plan = build_plan(table, config, seed=3, image_size=IMAGE_SIZE, video_size=64).to_pylist()
    packs: dict[int, set[bool]] = {}
    for row in plan:
        packs.setdefault(row["pack"], set()).add(row["image_tokens"] > 0)
    assert sum(len(kinds) == 1 for kinds in packs.values()) >= len(packs) - 1


def test_only_selected_training_samples_are_planned() -> None:
    rows = [(5, True, 0)] * 6
    table = release_of(rows, ["train", "val", "test", "train", "train", "test"])
    table = table.set_column(2, "selected", pa.array([True, True, True, False, True, True]))
    plan = build_plan(table, CONFIG, seed=0, image_size=IMAGE_SIZE, video_size=64)
    assert set(plan["sample"].to_pylist()) == {0, 4}


def test_no_training_sample_is_one_clear_error() -> None:
    with pytest.raises(StageError, match="no sample is selected for training"):
        build_plan(release_of([(5, True, 0)], ["test"]), CONFIG, seed=0, image_size=IMAGE_SIZE, video_size=64)


def test_oversize_sample_is_named_with_its_length() -> None:
    with pytest.raises(StageError, match=r"s/d/0001 does not fit a pack: expected at most 32 tokens, got 45"):
        build_plan(release_of([(5, True, 0), (40, True, 0)]), CONFIG, seed=0, image_size=IMAGE_SIZE, video_size=64)


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [("sample", 1, "every_sample_once_per_epoch"), ("start", 9, "packs_within_capacity")],
)
def test_tampered_plan_fails_its_gate(column: str, value: int, rule: str) -> None:
    table = release_of([(5, True, 0), (6, True, 0), (7, False, 8)])
    plan = build_plan(table, CONFIG, seed=0, image_size=IMAGE_SIZE, video_size=64)
    values = plan[column].to_pylist()
    values[0] = value if values[0] != value else 0
    index = plan.schema.get_field_index(column)
    tampered = plan.set_column(index, plan.schema.field(index), pa.array(values, pa.int32()))
    assert rule in {finding.rule for finding in check_plan(tampered, table, CONFIG) if not finding.passed}
