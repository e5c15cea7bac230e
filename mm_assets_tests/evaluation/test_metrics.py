"""Accuracy against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_assets.evaluation.metrics import UNSEEN, balanced_accuracy, measure_accuracy

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(UNSEEN, 4)), min_size=1, max_size=60)


def ids(values: list[int]) -> np.ndarray:
    return np.array(values, np.int64)


def naive_balanced_accuracy(pairs: list[tuple[int, int]]) -> float:
    recalls = []
    for label in {label for _, label in pairs}:
        own = [predicted for predicted, actual in pairs if actual == label]
        recalls.append(sum(predicted == label for predicted in own) / len(own))
    return sum(recalls) / len(recalls)


@pytest.mark.property
@given(PAIRS)
def test_balanced_accuracy_is_the_mean_recall_of_the_classes_present(pairs: list[tuple[int, int]]) -> None:
    predicted, labels = (ids(list(column)) for column in zip(*pairs, strict=True))
    assert balanced_accuracy(predicted, labels) == pytest.approx(naive_balanced_accuracy(pairs))


@pytest.mark.property
@given(PAIRS, st.permutations(range(5)))
def test_renaming_the_classes_changes_nothing(pairs: list[tuple[int, int]], names: list[int]) -> None:
    predicted = ids([p for p, _ in pairs])
    labels = ids([label for _, label in pairs])
    renamed = ids([*names, UNSEEN])
    assert balanced_accuracy(renamed[predicted], renamed[labels]) == pytest.approx(balanced_accuracy(predicted, labels))


def test_a_rare_class_weighs_as_much_as_a_common_one() -> None:
    labels = ids([0] * 98 + [1, 1])
    assert balanced_accuracy(ids([0] * 100), labels) == 0.5
    assert measure_accuracy(ids([0] * 100), labels).accuracy == 0.98


def test_a_class_absent_from_the_split_does_not_count() -> None:
    assert balanced_accuracy(ids([0, 1, 2]), ids([0, 1, 1])) == 0.75


def test_a_label_the_model_does_not_know_is_always_wrong() -> None:
    assert balanced_accuracy(ids([0, 0]), ids([0, UNSEEN])) == 0.5


def test_no_samples_have_no_accuracy() -> None:
    measured = measure_accuracy(ids([]), ids([]))
    assert (measured.accuracy, measured.balanced_accuracy, measured.n) == (None, None, 0)
    with pytest.raises(ValueError, match="at least 1, got 0 and 0"):
        balanced_accuracy(ids([]), ids([]))
