"""Laws of the plan, for any data and parameters."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_assets.batching import plan_file, schedule
from mm_assets.batching.config import PhaseConfig, PlanConfig
from mm_assets.batching.plan_file import PlanFile
from mm_assets.batching.schedule import deal_to_lanes
from mm_assets.batching.validate import check_plan
from mm_assets.errors import StageError
from mm_assets_tests.batching.conftest import Planning, Row, release_of

CONFIG = PlanConfig(pack_tokens=32, packs_per_lane=2, num_steps=None, num_epochs=2, window=16, block=4, audio_stack=4)

samples_strategy = st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.integers(0, 40)), min_size=1, max_size=80)
phases_strategy = st.sampled_from(
    [
        (),
        (PhaseConfig(group_by="language", temperature=3.0),),
        (PhaseConfig(share=0.4), PhaseConfig(group_by="modalities", temperature=2.0)),
    ]
)
config_strategy = st.builds(
    PlanConfig,
    num_lanes=st.sampled_from([1, 2, 4, 8]),
    pack_tokens=st.integers(32, 90),
    packs_per_lane=st.integers(1, 3),
    num_steps=st.one_of(st.none(), st.integers(1, 30)),
    num_epochs=st.integers(1, 3),
    phases=phases_strategy,
    window=st.integers(1, 40),
    block=st.integers(1, 9),
    audio_stack=st.just(4),
)


def languages_of(rows: list[Row]) -> list[str]:
    return [("en", "de", "fr")[text % 3] for text, _, _ in rows]


@pytest.mark.property
@settings(deadline=None, max_examples=40)
@given(rows=samples_strategy, config=config_strategy, seed=st.integers(0, 1000))
def test_every_plan_passes_its_own_check_and_is_repeatable(rows: list[Row], config: PlanConfig, seed: int) -> None:
    release = release_of(rows, language=languages_of(rows))
    with tempfile.TemporaryDirectory() as folder:
        made = Planning(Path(folder), release, config, seed=seed)
        findings = check_plan(made.path, made.planned, config, seed=seed)
        data = made.path.read_bytes()
        assert [finding.detail for finding in findings if not finding.passed] == []
        assert Planning(Path(folder), release, config, seed=seed).path.read_bytes() == data
        assert 0.0 < float(str(made.summary["padding_efficiency"])) <= 1.0
        if config.num_steps is not None:
            assert made.summary["num_steps"] == config.num_steps


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(totals=st.lists(st.integers(1, 30), min_size=1, max_size=200), lanes=st.sampled_from([1, 2, 4, 8]))
def test_lanes_differ_by_less_than_two_samples(totals: list[int], lanes: int) -> None:
    config = PlanConfig(num_lanes=lanes, block=4)
    everything = np.arange(len(totals), dtype=np.int32)
    dealt = deal_to_lanes(everything, np.array(totals, np.int32), config, key=(1, 0, 0))
    assert sorted(np.concatenate(dealt).tolist()) == everything.tolist()
    work = [sum(totals[index] for index in lane) for lane in dealt]
    assert max(work) - min(work) <= 2 * max(totals)


def test_padding_is_below_two_thousandths_of_ordinary_lengths(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [(int(text), True, int(frames)) for text, frames in zip(*rng.integers(8, 200, (2, 2000)), strict=True)]
    made = Planning(tmp_path, release_of(rows), PlanConfig(pack_tokens=1024, num_steps=60))
    assert float(str(made.summary["padding_efficiency"])) > 0.998


def test_epochs_and_seeds_give_other_orders(tmp_path: Path) -> None:
    release = release_of([(9, False, 0)] * 64)
    first, other = (Planning(tmp_path, release, CONFIG, seed=seed).rows for seed in (1, 2))
    epochs = [[row["sample"] for row in first if row["epoch"] == epoch] for epoch in (0, 1)]
    assert epochs[0] != epochs[1]
    assert epochs[0] != [row["sample"] for row in other if row["epoch"] == 0]


def test_a_longer_run_begins_like_a_shorter_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = release_of([(9, True, index % 40) for index in range(64)])
    short = Planning(tmp_path, release, replace(CONFIG, num_steps=3)).table
    # How many steps are computed at a time changes nothing either.
    monkeypatch.setattr(schedule, "CHUNK_SLOTS", 1)
    monkeypatch.setattr(plan_file, "GROUP_SLOTS", 5)
    long = Planning(tmp_path, release, replace(CONFIG, num_steps=30))
    assert long.table.slice(0, len(short)).equals(short)
    assert PlanFile(long.path).num_steps == 30


def test_a_plan_is_read_by_ranges_of_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_file, "GROUP_SLOTS", 20)
    made = Planning(tmp_path, release_of([(9, False, 0)] * 64), replace(CONFIG, num_steps=30))
    plan = PlanFile(made.path)
    groups = [plan.group_of(step) for step in range(30)]
    assert groups == sorted(groups)
    assert groups[-1] > 5
    for step, number in enumerate(groups):
        rows = plan.read_group(number, ["step", "sample"]).filter(pa.compute.field("step") == step)
        assert rows["sample"].to_pylist() == [row["sample"] for row in made.rows if row["step"] == step]


def test_only_selected_training_samples_are_planned(tmp_path: Path) -> None:
    release = release_of(
        [(5, True, 0)] * 6,
        split=["train", "val", "test", "train", "train", "test"],
        selected=[True, True, True, False, True, True],
    )
    assert {row["sample"] for row in Planning(tmp_path, release, CONFIG).rows} == {0, 4}


def test_no_training_sample_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no sample is selected for training"):
        Planning(tmp_path, release_of([(5, True, 0)], split=["test"]), CONFIG)


def test_oversize_sample_is_named_with_its_length(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"s/d/0001 does not fit a pack: expected at most 32 tokens, got 45"):
        Planning(tmp_path, release_of([(5, True, 0), (40, True, 0)]), CONFIG)


def broken_rules(made: Planning, column: str, row: int, value: object) -> set[str]:
    """Rules that the plan breaks once ``value`` stands in its column."""
    values = made.table[column].to_pylist()
    assert values[row] != value
    values[row] = value
    index = made.table.schema.get_field_index(column)
    field = made.table.schema.field(index)
    pq.write_table(made.table.set_column(index, field, pa.array(values, field.type)), made.path)
    return {finding.rule for finding in check_plan(made.path, made.planned, CONFIG, seed=0) if not finding.passed}


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("sample", 3, "every_sample_as_often_as_planned"),
        ("sample", 99, "every_sample_as_often_as_planned"),
        ("id", "s/d/9999", "every_sample_as_often_as_planned"),
        ("epoch", 1, "every_sample_as_often_as_planned"),
        ("start", 9, "packs_within_capacity"),
        ("text_tokens", 2, "packs_within_capacity"),
        ("lane", 7, "lanes_are_balanced"),
    ],
)
def test_tampered_plan_fails_its_check(tmp_path: Path, column: str, value: object, rule: str) -> None:
    made = Planning(tmp_path, release_of([(5, True, 0), (6, True, 0), (7, False, 8), (12, True, 0)]), CONFIG)
    row = next(index for index, slot in enumerate(made.rows) if slot["sample"] != 3)
    assert rule in broken_rules(made, column, row, value)


@pytest.mark.parametrize("num_steps", [None, 9])
def test_a_plan_without_one_of_its_slots_fails_its_check(tmp_path: Path, num_steps: int | None) -> None:
    config = replace(CONFIG, num_steps=num_steps)
    made = Planning(tmp_path, release_of([(9, False, 0)] * 64), config)
    # The last slot of a pack of the first step: the slots before it still lie one behind the other.
    last = max(index for index, row in enumerate(made.rows) if (row["step"], row["lane"], row["pack"]) == (0, 0, 0))
    pq.write_table(pa.concat_tables([made.table.slice(0, last), made.table.slice(last + 1)]), made.path)
    findings = {finding.rule: finding for finding in check_plan(made.path, made.planned, config, seed=0)}
    assert not findings["every_sample_as_often_as_planned"].passed
    assert findings["packs_within_capacity"].passed


def test_a_plan_of_other_columns_is_one_finding(tmp_path: Path) -> None:
    made = Planning(tmp_path, release_of([(5, True, 0)]), CONFIG)
    pq.write_table(made.table.drop_columns(["slot"]), made.path)
    (finding,) = check_plan(made.path, made.planned, CONFIG, seed=0)
    assert "expected rows of epoch, step, lane, pack, slot, sample" in finding.detail
