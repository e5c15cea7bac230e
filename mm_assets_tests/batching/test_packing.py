"""Laws of filling packs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_assets.batching.packing import pack_items


@pytest.mark.property
@settings(deadline=None, max_examples=100)
@given(lengths=st.lists(st.integers(1, 50), max_size=120), keep=st.integers(0, 300))
def test_packing_places_every_item_once_and_never_overfills(lengths: list[int], keep: int) -> None:
    packs, rest = pack_items(lengths, 50, keep=keep)
    assert sorted([*rest, *(item for pack in packs for item in pack)]) == list(range(len(lengths)))
    assert all(sum(lengths[item] for item in pack) <= 50 for pack in packs)
    assert sum(lengths[item] for item in rest) <= keep
    assert rest == sorted(rest)


@pytest.mark.property
@settings(deadline=None, max_examples=100)
@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=120))
def test_a_pack_begins_with_the_oldest_item_and_has_no_room_for_another(lengths: list[int]) -> None:
    packs, _ = pack_items(lengths, 50)
    left = set(range(len(lengths)))
    for pack in packs:
        assert pack[0] == min(left)
        left -= set(pack)
        room = 50 - sum(lengths[item] for item in pack)
        assert all(lengths[item] > room for item in left)


@pytest.mark.parametrize(
    ("lengths", "capacity", "expected"),
    [
        ([6, 5, 4, 3], 9, [[0, 3], [1, 2]]),
        ([5, 3, 3, 2, 2, 9], 9, [[0, 3, 4], [1, 2], [5]]),
    ],
)
def test_the_last_room_is_filled_exactly_where_that_is_possible(
    lengths: list[int], capacity: int, expected: list[list[int]]
) -> None:
    assert pack_items(lengths, capacity)[0] == expected


@pytest.mark.parametrize(("shortest", "longest", "capacity"), [(70, 193, 1024), (10, 200, 512), (8, 2000, 8192)])
def test_packs_of_a_window_are_full(shortest: int, longest: int, capacity: int) -> None:
    lengths = np.random.default_rng(0).integers(shortest, longest, 1024).tolist()
    packs, rest = pack_items(lengths, capacity, keep=4 * capacity)
    assert (sum(lengths) - sum(lengths[item] for item in rest)) / (capacity * len(packs)) > 0.998
