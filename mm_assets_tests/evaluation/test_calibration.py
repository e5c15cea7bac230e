"""Calibration: bounds, an exact case, and what a temperature may and may not change."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mm_assets.evaluation.calibration import (
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
    measure_calibration,
)
from mm_assets.evaluation.metrics import UNSEEN

LOGITS = hnp.arrays(np.float64, st.tuples(st.integers(1, 20), st.integers(2, 6)), elements=st.floats(-20, 20, width=32))


def softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


def loss(probs: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(np.maximum(probs[np.arange(len(labels)), labels], 1e-300)).mean())


def sampled(num: int, classes: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """True probabilities made ``sharpness`` times too confident, and labels drawn from the true ones."""
    rng = np.random.default_rng(7)
    logits = rng.normal(size=(num, classes)) * 1.5
    labels = np.array([rng.choice(classes, p=row) for row in softmax(logits)], np.int64)
    return softmax(logits * sharpness), labels


@pytest.mark.property
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=80), st.integers(1, 30))
def test_the_error_lies_between_the_mean_gap_and_one(pairs: list[tuple[float, bool]], num_bins: int) -> None:
    confidence = np.array([value for value, _ in pairs])
    correct = np.array([hit for _, hit in pairs])
    error = expected_calibration_error(confidence, correct, num_bins=num_bins)
    # The triangle inequality: binning can only add to the gap of everything in one bin.
    assert abs(confidence.mean() - correct.mean()) - 1e-9 <= error <= 1.0


def test_the_error_of_two_bins_is_what_it_is_by_hand() -> None:
    confidence = np.array([0.9, 0.9, 0.3, 0.5])
    correct = np.array([True, False, False, True])
    # (0.5, 1]: 2 of 4, |0.9 - 0.5| = 0.4.  [0, 0.5]: 2 of 4, |0.4 - 0.5| = 0.1.
    assert expected_calibration_error(confidence, correct, num_bins=2) == pytest.approx(0.25)


@pytest.mark.property
@given(LOGITS, st.floats(0.05, 20))
def test_a_temperature_never_changes_the_prediction(logits: np.ndarray, temperature: float) -> None:
    probs = softmax(logits)
    scaled = apply_temperature(probs, temperature)
    assert np.allclose(scaled.sum(axis=1), 1.0)
    top = probs.argmax(axis=1)
    assert (scaled[np.arange(len(top)), top] == scaled.max(axis=1)).all()


@pytest.mark.property
@given(LOGITS, st.data())
def test_the_fitted_temperature_is_no_worse_than_any_other(logits: np.ndarray, data: st.DataObject) -> None:
    probs = softmax(logits)
    labels = np.array(data.draw(st.lists(st.integers(0, probs.shape[1] - 1), min_size=len(probs), max_size=len(probs))))
    fitted = loss(apply_temperature(probs, fit_temperature(probs, labels)), labels)
    for other in (0.06, 0.3, 1.0, 3.0, 18.0):
        assert fitted <= loss(apply_temperature(probs, other), labels) + 1e-6


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_finds_how_overconfident_a_model_is(sharpness: float) -> None:
    probs, labels = sampled(4000, 5, sharpness)
    assert fit_temperature(probs, labels) == pytest.approx(sharpness, rel=0.1)


def test_scaling_an_overconfident_model_lowers_its_error_on_other_samples() -> None:
    probs, labels = sampled(4000, 5, 3.0)
    half = 2000
    measured = measure_calibration(
        probs[:half], labels[:half], fit_probs_BK=probs[half:], fit_labels_B=labels[half:], num_bins=15
    )
    assert measured.ece is not None
    assert measured.ece_after is not None
    assert measured.ece > 0.1
    assert measured.ece_after < 0.05


def test_without_labels_there_is_no_calibration() -> None:
    none, labels = np.zeros((0, 3)), np.zeros(0, np.int64)
    measured = measure_calibration(none, labels, fit_probs_BK=none, fit_labels_B=labels, num_bins=15)
    assert (measured.ece, measured.temperature, measured.ece_after, measured.n) == (None, None, None, 0)


def test_a_split_to_fit_on_without_known_labels_leaves_the_error_as_it_is() -> None:
    probs, labels = sampled(50, 3, 1.0)
    measured = measure_calibration(
        probs, labels, fit_probs_BK=probs, fit_labels_B=np.full(50, UNSEEN, np.int64), num_bins=15
    )
    assert measured.ece is not None
    assert (measured.temperature, measured.ece_after, measured.num_fitted_on) == (None, None, 0)
