"""Groups of nearly equal blobs: the search finds what comparing every pair finds, and the measured promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_assets.modalities.table import aspect
from mm_assets.release.dedup import components
from mm_assets.release.near_sets import NEIGHBOURS, near_pairs
from mm_assets_tests.release import near_measured
from mm_assets_tests.release.drawings import noise_field, picture
from mm_assets_tests.release.lineages import near_groups

IMAGE, AUDIO, TEXT = (aspect(name, "nearness") for name in ("image", "audio", "text"))


def compared(signatures, nearness):
    """The definition: every pair is compared."""
    values = nearness.parse(signatures)
    left, right = np.triu_indices(len(values), 1)
    near = nearness.are_near(values[left], values[right])
    number = np.arange(near.sum())
    rows, keys = np.concatenate([left[near], right[near]]), np.concatenate([number, number])
    return components(len(values), rows, keys)


def shades(count, *, of):
    """Signatures of ``of`` pictures in several shades, some of them near to each other."""
    return np.stack([np.frombuffer(picture(n % of, shade=2 * (n // of)), np.uint8) for n in range(count)])


def vectors(count, *, centres, noise, seed=0):
    """Signatures of clips around some centres."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(0, 25, (centres, AUDIO.NUM_BYTES))
    values = centre[np.arange(count) % centres] + rng.normal(0, noise, (count, AUDIO.NUM_BYTES))
    return np.clip(np.round(values), -127, 127).astype(np.int8).view(np.uint8)


@pytest.mark.parametrize(
    ("signatures", "nearness"),
    [
        (shades(120, of=40), IMAGE),
        (vectors(400, centres=100, noise=3), AUDIO),
        (vectors(300, centres=9, noise=5), AUDIO),
    ],
)
def test_the_search_finds_the_groups_that_comparing_every_pair_finds(signatures, nearness):
    assert near_groups(signatures, nearness).tolist() == compared(signatures, nearness).tolist()


@pytest.mark.property
@given(st.permutations(range(60)), st.lists(st.integers(0, 59), max_size=20))
@settings(deadline=None, max_examples=10)
def test_groups_depend_neither_on_order_nor_on_repetition(order, repeated):
    signatures = vectors(60, centres=20, noise=5)
    expected = near_groups(signatures, AUDIO)
    rows = np.array([*order, *repeated])
    found = near_groups(signatures[rows], AUDIO)
    together = {(int(expected[one]), int(leader)) for one, leader in zip(rows, found, strict=True)}
    assert len(together) == len(np.unique(expected)) == len(np.unique(found))


def test_a_bucket_that_no_component_divides_loses_nobody():
    signatures = np.full((3000, TEXT.NUM_BYTES), 7, np.uint8)
    # One byte differs, outside of the first twelve components of most tables; all of them are near.
    signatures[np.arange(3000), np.arange(3000) % TEXT.NUM_BYTES] = np.arange(3000) // TEXT.NUM_BYTES + 8
    assert not near_groups(signatures, TEXT).any()


def test_nothing_and_one_signature_are_their_own_groups():
    assert near_groups(np.zeros((0, AUDIO.NUM_BYTES), np.uint8), AUDIO).tolist() == []
    assert near_groups(np.zeros((1, AUDIO.NUM_BYTES), np.uint8), AUDIO).tolist() == [0]


def test_being_near_is_symmetric():
    values = IMAGE.parse(shades(60, of=12))
    left, right = np.triu_indices(60, 1)
    near = IMAGE.are_near(values[left], values[right])
    assert near.tolist() == IMAGE.are_near(values[right], values[left]).tolist()
    assert 0 < near.sum() < len(near)


def test_what_outlines_rule_out_is_not_near():
    for nearness, signatures in ((IMAGE, shades(60, of=12)), (AUDIO, vectors(100, centres=30, noise=5))):
        values = nearness.parse(signatures)
        left, right = np.triu_indices(len(values), 1)
        outlines = nearness.outlines(values)
        maybe = nearness.may_be_near(outlines[left], outlines[right])
        assert maybe[nearness.are_near(values[left], values[right])].all()
        assert not maybe.all()


def test_near_pairs_of_a_group_are_those_that_comparing_every_pair_finds():
    signatures = vectors(300, centres=30, noise=5)
    values = AUDIO.parse(signatures)
    left, right = np.triu_indices(len(values), 1)
    near = AUDIO.are_near(values[left], values[right])
    assert near_pairs(signatures, AUDIO).tolist() == np.stack([left[near], right[near]], axis=1).tolist()


def test_pairs_of_a_large_group_grow_with_its_members_and_leave_nobody_alone():
    signatures = vectors(800, centres=1, noise=4)
    pairs = near_pairs(signatures, AUDIO)
    assert len(pairs) <= 800 * NEIGHBOURS * AUDIO.NUM_TABLES
    connected = components(800, pairs.T.ravel(), np.tile(np.arange(len(pairs)), 2))
    assert not connected.any()


def holds(figures):
    assert figures.found >= 0.99, figures.missed
    assert figures.grouped <= 0.001


def test_copies_of_some_emoji_are_grouped():
    holds(near_measured.measure("image", *near_measured.pictures(near_measured.emoji_pictures(80))))


def test_copies_of_other_pictures_are_grouped():
    holds(near_measured.measure("image", *near_measured.pictures([noise_field(seed) for seed in range(50)])))


def test_clips_encoded_again_are_grouped():
    holds(near_measured.measure("audio", *near_measured.clips(30)))


def test_texts_with_small_edits_are_grouped():
    holds(near_measured.measure("text", *near_measured.texts(near_measured.names(400), has_words=False)))
    holds(near_measured.measure("text", *near_measured.texts(near_measured.sentences(300), has_words=True)))


@pytest.mark.slow
def test_copies_of_every_emoji_of_the_demo_are_grouped():
    figures = near_measured.measure("image", *near_measured.pictures(near_measured.emoji_pictures(4000)))
    assert figures.num_originals > 1500
    assert sum(figures.missed.values()) == 0
    holds(figures)


@pytest.mark.slow
def test_a_thousand_clips_and_texts_are_grouped():
    holds(near_measured.measure("audio", *near_measured.clips(1000)))
    holds(near_measured.measure("text", *near_measured.texts(near_measured.names(4000), has_words=False)))
    holds(near_measured.measure("text", *near_measured.texts(near_measured.sentences(1500), has_words=True)))
