"""Retrieval: duplicates count as hits, ties do not help, chance is chance."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_assets.evaluation.retrieval import CUTOFFS, chance_of_hit, measure_recall


def vectors(num: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(num, 8)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def unique_keys(num: int) -> list[set[str]]:
    return [{f"sample {index}"} for index in range(num)]


@pytest.mark.property
@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(0, 5), st.lists(st.integers(0, 6), min_size=40, max_size=40))
def test_recall_and_chance_grow_with_k(num: int, seed: int, groups: list[int]) -> None:
    keys = [{f"group {group}"} for group in groups[:num]]
    measured = measure_recall(vectors(num, seed), vectors(num, seed + 100), keys)
    assert list(measured.recall) == sorted(measured.recall)
    assert list(measured.chance) == sorted(measured.chance)
    assert all(0.0 <= value <= 1.0 for value in (*measured.recall, *measured.chance))


def test_a_perfect_model_finds_everything() -> None:
    points = vectors(30, 0)
    measured = measure_recall(points, points, unique_keys(30))
    assert measured.recall == (1.0, 1.0, 1.0)
    assert measured.chance == pytest.approx([k / 30 for k in CUTOFFS])


def test_an_identical_caption_of_another_sample_is_a_hit() -> None:
    queries = np.eye(3, dtype=np.float32)
    answers = queries[[1, 0, 2]]
    assert measure_recall(queries, answers, unique_keys(3)).recall[0] == pytest.approx(1 / 3)
    assert measure_recall(queries, answers, [{"same"}, {"same"}, {"other"}]).recall[0] == 1.0


def test_a_model_that_says_the_same_about_everything_is_not_rewarded() -> None:
    constant = np.ones((20, 8), np.float32)
    assert measure_recall(constant, constant, unique_keys(20)).recall == (0.0, 0.0, 0.0)


def test_chance_matches_counting_all_draws() -> None:
    for pool, hits, k in [(6, 1, 1), (6, 2, 3), (5, 3, 3), (4, 4, 1), (3, 1, 10)]:
        draws = list(itertools.combinations(range(pool), min(k, pool)))
        expected = sum(any(item < hits for item in draw) for draw in draws) / len(draws)
        assert chance_of_hit(np.array([hits]), pool, k)[0] == pytest.approx(expected)


def test_an_empty_pool_has_no_recall() -> None:
    empty = np.zeros((0, 8), np.float32)
    measured = measure_recall(empty, empty, [])
    assert (measured.recall, measured.chance, measured.n) == ((None, None, None), (None, None, None), 0)
