"""Laws of leakage groups and splits, on arrays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_assets.errors import SpecError
from mm_assets.release.config import SPLITS, FreezeConfig
from mm_assets.release.dedup import components
from mm_assets.release.splits import assign, draw, separate

PAIRS = st.lists(st.tuples(st.integers(0, 39), st.integers(0, 29)), max_size=120)


def arrays(pairs):
    rows = np.array([row for row, _ in pairs], dtype=np.int64)
    return rows, np.array([key for _, key in pairs], dtype=np.int64)


def slow_components(num_rows, pairs):
    """The definition, spelt out: merge until nothing changes."""
    smallest = list(range(num_rows))
    changed = True
    while changed:
        changed = False
        for key in {key for _, key in pairs}:
            members = [row for row, other in pairs if other == key]
            least = min(smallest[row] for row in members)
            for row in members:
                changed |= smallest[row] != least
                smallest[row] = least
    return smallest


@pytest.mark.property
@given(PAIRS)
@settings(deadline=None)
def test_components_are_what_the_definition_says(pairs):
    assert components(40, *arrays(pairs)).tolist() == slow_components(40, pairs)


def test_components_of_a_long_chain_are_found():
    rows = np.repeat(np.arange(50_000), 2)[1:-1]
    keys = np.repeat(np.arange(49_999), 2)
    assert not components(50_000, rows.astype(np.int64), keys.astype(np.int64)).any()


@pytest.mark.property
@given(PAIRS, st.lists(st.integers(-1, 2), min_size=40, max_size=40), st.sets(st.integers(0, 39), max_size=5))
@settings(deadline=None)
def test_no_group_inherits_two_splits_and_no_innocent_parent_is_left_out(pairs, inherited_list, out):
    rows, keys = arrays(pairs)
    inherited = np.array(inherited_list, dtype=np.int64)
    left_out = np.isin(np.arange(40), list(out))
    groups, leaked = separate(40, rows, keys, inherited=inherited, left_out=left_out)
    assert leaked[left_out].all()
    for group in np.unique(groups):
        members = (groups == group) & ~leaked & (inherited >= 0)
        assert len(np.unique(inherited[members])) <= 1
    before = components(40, *arrays([pair for pair in pairs if pair[0] not in out]))
    for row in np.flatnonzero(leaked & ~left_out):
        members = (before == before[row]) & (inherited >= 0) & ~left_out
        assert len(np.unique(inherited[members])) > 1


def assigned(num_groups, *, labels=None, inherited=None, config=None, seed=7):
    groups = np.arange(num_groups, dtype=np.int64)
    none = np.full(num_groups, -1, dtype=np.int64)
    return assign(
        groups,
        np.array([draw(f"id/{i}", seed) for i in range(num_groups)]),
        inherited=none if inherited is None else np.array(inherited, dtype=np.int64),
        selected=np.ones(num_groups, dtype=np.bool_),
        labels=none if labels is None else np.array(labels, dtype=np.int64),
        config=config or FreezeConfig(),
    )


def test_draw_is_a_golden_value():
    assert draw("group/zoo/cat", 7) == pytest.approx(0.9630967, abs=5e-8)


def test_shares_of_many_groups_are_the_fractions():
    counts = np.bincount(assigned(4000), minlength=3) / 4000
    assert counts == pytest.approx([0.75, 0.10, 0.15], abs=0.02)


@pytest.mark.property
@given(st.integers(3, 12), st.integers(0, 1000))
@settings(deadline=None)
def test_three_groups_are_enough_to_fill_three_splits(num_groups, seed):
    assert set(assigned(num_groups, seed=seed)) == {0, 1, 2}


@pytest.mark.property
@given(st.lists(st.integers(-1, 5), min_size=12, max_size=60), st.integers(0, 1000))
@settings(deadline=None)
def test_classes_reach_train_and_no_split_is_emptied(labels, seed):
    splits = assigned(len(labels), labels=labels, seed=seed)
    counts = np.bincount(splits, minlength=3)
    assert counts.min() >= 1
    taught = {label for label, split in zip(labels, splits, strict=True) if split == 0}
    for label in set(labels) - {-1} - taught:
        where = {int(split) for other, split in zip(labels, splits, strict=True) if other == label}
        assert all(counts[split] == 1 for split in where)


def test_class_whose_first_group_is_the_last_of_its_split_sends_another_one():
    splits = assigned(12, labels=[1, 1, 1, 1, 0, 1, 0, 1, 1, 0, 1, 1], seed=898)
    assert 0 in splits[[4, 6, 9]]
    assert np.bincount(splits, minlength=3).min() >= 1


@pytest.mark.property
@given(st.lists(st.integers(-1, 2), min_size=5, max_size=40), st.integers(0, 1000))
@settings(deadline=None)
def test_inherited_splits_never_change(inherited, seed):
    splits = assigned(len(inherited), inherited=inherited, labels=[i % 3 for i in range(len(inherited))], seed=seed)
    assert all(before in (-1, after) for before, after in zip(inherited, splits, strict=True))


GENERATIONS = st.lists(PAIRS, min_size=2, max_size=4)


@pytest.mark.property
@given(GENERATIONS, st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_generation_after_generation_splits_stay_and_what_is_linked_shares_one(generations, seed):
    """Each generation adds ten rows, and links among all that there are: shared keys or near pairs."""
    inherited, left_out = np.zeros(0, np.int64), np.zeros(0, np.bool_)
    known = []
    for number, pairs in enumerate(generations):
        num_rows = 10 * (number + 1)
        known += [(row % num_rows, key + 30 * number) for row, key in pairs]
        rows, keys = arrays(known)
        new = num_rows - len(inherited)
        before = inherited
        inherited = np.concatenate([inherited, np.full(new, -1)])
        left_out = np.concatenate([left_out, np.zeros(new, np.bool_)])
        groups, left_out = separate(num_rows, rows, keys, inherited=inherited, left_out=left_out)
        splits = assign(
            groups, np.array([draw(f"id/{leader}", seed) for leader in np.unique(groups)]), inherited=inherited,
            selected=~left_out, labels=np.arange(num_rows) % 3, config=FreezeConfig(),
        )  # fmt: skip
        assert splits[: len(before)].tolist() == before.tolist()
        for key in np.unique(keys):
            members = rows[(keys == key) & ~left_out[rows]]
            assert len(np.unique(splits[members])) <= 1
        inherited = splits


def test_split_with_fraction_zero_stays_empty():
    config = FreezeConfig(train_fraction=0.8, val_fraction=0.0, test_fraction=0.2)
    assert SPLITS.index("val") not in assigned(500, config=config)


def test_fractions_that_do_not_add_up_are_refused():
    with pytest.raises(SpecError, match="add up to 1, got 0.5, 0.1, 0.15"):
        FreezeConfig(train_fraction=0.5)
