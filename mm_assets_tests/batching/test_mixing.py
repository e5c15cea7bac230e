"""How often samples are in an epoch."""

from itertools import islice

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_assets.batching.config import PhaseConfig, PlanConfig
from mm_assets.batching.inputs import check_plan_config
from mm_assets.batching.mixing import epoch_counts
from mm_assets.errors import SpecError, StageError


def counts_of(phases: list[PhaseConfig], languages: list[str | None], *, epochs: int, seed: int = 0) -> list[list[int]]:
    config = PlanConfig(num_steps=None, num_epochs=epochs, phases=tuple(phases))
    groups = {"language": pa.array(languages, pa.string())}
    return [counts.tolist() for counts in epoch_counts(config, len(languages), groups, seed=seed)]


def test_without_phases_every_epoch_has_every_sample_once() -> None:
    assert counts_of([], ["en", None], epochs=3) == [[1, 1]] * 3


def test_steps_that_are_given_go_on_through_the_last_phase() -> None:
    config = PlanConfig(num_steps=5, phases=(PhaseConfig(share=0.5, num_epochs=2), PhaseConfig()))
    counts = [int(epoch.sum()) for epoch in islice(epoch_counts(config, 10, {}, seed=0), 5)]
    assert counts == [5, 5, 10, 10, 10]


def test_a_smaller_share_is_part_of_a_larger_one() -> None:
    small, large = (np.array(counts_of([PhaseConfig(share=share)], ["en"] * 40, epochs=1)[0]) for share in (0.1, 0.3))
    assert (small.sum(), large.sum()) == (4, 12)
    assert (small <= large).all()


def test_temperature_makes_groups_more_equal() -> None:
    languages = ["en"] * 90 + ["de"] * 10
    shares = {}
    for temperature in (1.0, 2.0, 1e9):
        counts = counts_of([PhaseConfig(group_by="language", temperature=temperature)], languages, epochs=1)[0]
        shares[temperature] = sum(counts[90:]), sum(counts)
    # 10 to the power 1/2 against 90 to the power 1/2 is 1 to 3.
    assert shares == {1.0: (10, 100), 2.0: (25, 100), 1e9: (50, 100)}


def test_weights_multiply_and_zero_leaves_a_group_out() -> None:
    languages = ["en", "en", "de", "de", None, None]
    weights = {"de": 2.0, "(none)": 0.0}
    counts = counts_of([PhaseConfig(group_by="language", weights=weights)], languages, epochs=1)[0]
    assert (sum(counts[:2]), sum(counts[2:4]), sum(counts[4:])) == (2, 4, 0)


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(
    languages=st.lists(st.sampled_from(["en", "de", "fr", None]), min_size=1, max_size=60),
    temperature=st.sampled_from([1.0, 1.7, 5.0]),
    share=st.sampled_from([0.3, 1.0]),
    seed=st.integers(0, 99),
)
def test_samples_of_a_group_take_turns(
    languages: list[str | None], temperature: float, share: float, seed: int
) -> None:
    phase = PhaseConfig(group_by="language", temperature=temperature, share=share)
    epochs = np.array(counts_of([phase], languages, epochs=7, seed=seed))
    taking = epochs.sum(axis=0) > 0
    for name in {*languages}:
        members = np.array([language == name for language in languages]) & taking
        if members.any():
            often = epochs[:, members]
            # Within an epoch, and over all of them, no sample of a group is ahead of another by more than one.
            assert (often.max(axis=1) - often.min(axis=1)).max() <= 1
            assert often.sum(axis=0).max() - often.sum(axis=0).min() <= 1
            # And the group has the same share in every epoch, to one sample.
            assert often.sum(axis=1).max() - often.sum(axis=1).min() <= 1
    assert abs(epochs.sum(axis=1) - max(1, round(share * len(languages)))).max() <= len({*languages})


def test_a_weight_of_a_group_that_does_not_exist_is_named() -> None:
    with pytest.raises(StageError, match=r"a language that no training sample has: expected one of de, en, got xx"):
        counts_of([PhaseConfig(group_by="language", weights={"xx": 2.0})], ["en", "de"], epochs=1)


def test_weights_that_leave_nothing_are_refused() -> None:
    with pytest.raises(StageError, match="all groups of plan.phases weigh nothing"):
        counts_of([PhaseConfig(group_by="language", weights={"en": 0.0})], ["en"], epochs=1)


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (PhaseConfig(num_epochs=0), "phases.num_epochs: expected at least 1, got 0"),
        (PhaseConfig(share=1.5), "phases.share: expected above 0 and up to 1, got 1.5"),
        (PhaseConfig(group_by="label", temperature=0.5), "phases.temperature: expected at least 1, got 0.5"),
        (PhaseConfig(weights={"en": 2.0}), "phases.group_by: expected one of source, language"),
        (PhaseConfig(group_by="label", weights={"a": -1.0}), "phases.weights: expected 0 or more, got -1.0 of a"),
    ],
)
def test_an_unusable_phase_is_named(phase: PhaseConfig, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        check_plan_config("r1", PlanConfig(phases=(phase,)), image_size=64, video_size=64)
