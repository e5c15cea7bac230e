"""Slices share out the samples; what was not labelled or not known is counted as such."""

import numpy as np
import pytest

from mm_assets.errors import StageError
from mm_assets.evaluation.rows import Row, keyed_subset
from mm_assets.evaluation.slices import Judged, measure_slices


def row(number: int, label: str | None, language: str | None = "en", modalities: tuple[str, ...] = ("text",)) -> Row:
    return Row(row=number, id=f"s/d/{number}", label=label, language=language, group=None, modalities=modalities)


def judged(rows: list[Row], predicted: list[int], classes: tuple[str, ...] = ("cat", "dog")) -> Judged:
    return Judged(rows=rows, probs_BK=np.eye(len(classes))[predicted], classes=classes)


ROWS = [
    row(0, "cat"),
    row(1, "dog", "ja", ("text", "image")),
    row(2, None, "ja", ("image",)),
    row(3, "bird", None, ("text", "image")),
]


def test_every_slice_shares_out_all_samples() -> None:
    scores = measure_slices(judged(ROWS, [0, 1, 1, 1]))
    for name in ("modalities", "language", "label"):
        own = [score for score in scores if score.slice == name]
        assert sum(score.num_samples for score in own) == 4
        assert sum(score.n for score in own) == 3
    assert {score.value for score in scores if score.slice == "language"} == {"en", "ja", "(none)"}


def test_a_slice_without_labels_has_no_accuracy() -> None:
    scores = {(s.slice, s.value): s for s in measure_slices(judged(ROWS, [0, 1, 1, 1]))}
    image = scores["modalities", "image"]
    assert (image.num_samples, image.n, image.accuracy, image.balanced_accuracy) == (1, 0, None, None)
    assert scores["modalities", "text+image"].balanced_accuracy == 0.5


def test_a_class_the_model_does_not_know_counts_as_wrong() -> None:
    assert judged(ROWS, [0, 1, 1, 1]).score().accuracy == pytest.approx(2 / 3, abs=1e-6)


def test_a_model_without_classes_judges_nothing() -> None:
    nothing = Judged(rows=ROWS, probs_BK=np.zeros((4, 0)), classes=())
    assert nothing.score().n == 0
    assert all(score.n == 0 and score.accuracy is None for score in measure_slices(nothing))


def test_an_empty_split_has_no_slices() -> None:
    assert measure_slices(Judged(rows=[], probs_BK=np.zeros((0, 2)), classes=("cat", "dog"))) == []


def test_probabilities_that_are_not_finite_name_the_sample() -> None:
    probs = np.eye(2)[[0, 1, 1, 1]]
    probs[2, 0] = np.nan
    with pytest.raises(StageError, match="sample s/d/2: its probabilities are not finite"):
        Judged(rows=ROWS, probs_BK=probs, classes=("cat", "dog"))


def test_a_network_of_other_classes_is_refused() -> None:
    with pytest.raises(StageError, match=r"expected \(4, 3\), got \(4, 2\)"):
        Judged(rows=ROWS, probs_BK=np.eye(2)[[0, 1, 1, 1]], classes=("a", "b", "c"))


def test_adding_data_keeps_most_of_a_subset() -> None:
    rows = [row(number, None) for number in range(300)]
    before = {rows[index].id for index in keyed_subset(rows[:200], 50, "seed", 0)}
    after = {rows[index].id for index in keyed_subset(rows, 50, "seed", 0)}
    assert len(after) == 50
    assert after - before <= {entry.id for entry in rows[200:]}, "only new samples displace old ones"
    assert keyed_subset(rows, 1000, "seed", 0) == list(range(300))
