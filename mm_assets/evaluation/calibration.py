"""How far confidences can be trusted: expected calibration error, and one temperature that improves it.

Legend: B samples, K classes. Everything is computed in float64.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mm_assets.evaluation.metrics import UNSEEN, Ids

Floats = NDArray[np.float64]

#: Search range of the inverse temperature. Beyond it confidences are all but uniform or all but certain.
MIN_INVERSE, MAX_INVERSE = 0.05, 20.0
#: Golden-section steps: each keeps 0.618 of the range, so 60 leave 1e-12 of it.
SEARCH_STEPS = 60
#: Smallest probability a float32 softmax still represents.
TINY = 1e-38


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """ECE before and after ``temperature``; None where there was no labelled sample to measure or fit on."""

    ece: float | None
    temperature: float | None
    ece_after: float | None
    n: int
    num_fitted_on: int


def expected_calibration_error(confidence_B: Floats, correct_B: NDArray[np.bool_], *, num_bins: int) -> float:
    """Mean |confidence - accuracy| over equal-width bins of confidence, weighted by bin size; in [0, 1].

    Args:
        confidence_B: Probability of the predicted class, in [0, 1]. Bin i holds (i/num_bins, (i+1)/num_bins]; 0 joins
            the first.
        correct_B: Whether the prediction was right.
        num_bins: Number of bins.

    Raises:
        ValueError: B is 0.

    Source: Guo et al. 2017, "On calibration of modern neural networks", arXiv:1706.04599.
    """
    if not len(confidence_B):
        raise ValueError("expected calibration error: expected at least 1 sample, got 0.")
    bin_B = np.clip(np.ceil(confidence_B * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    gaps = np.bincount(bin_B, weights=confidence_B - correct_B, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(confidence_B))


def apply_temperature(probs_BK: Floats, temperature: float) -> Floats:
    """Probabilities after dividing the logits by ``temperature``; the order of a row's classes stays."""
    # A softmax's logarithm is its logits up to a constant per row, which the next softmax removes.
    scaled_BK = np.log(np.maximum(probs_BK, TINY)) / temperature
    exp_BK = np.exp(scaled_BK - scaled_BK.max(axis=1, keepdims=True))
    return exp_BK / exp_BK.sum(axis=1, keepdims=True)


def fit_temperature(probs_BK: Floats, labels_B: Ids) -> float:
    """The temperature that minimizes the negative log likelihood of ``labels_B``.

    The loss is convex in 1 / temperature, so a golden-section search over its logarithm finds the minimum; it takes a
    fixed number of steps and uses no randomness. A minimum outside the range gives the range's end.

    Args:
        probs_BK: Class probabilities; rows sum to 1.
        labels_B: Class ids in [0, K).

    Raises:
        ValueError: B is 0.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    if not len(labels_B):
        raise ValueError("temperature: expected at least 1 sample to fit on, got 0.")
    log_BK = np.log(np.maximum(probs_BK, TINY))
    low, high = math.log(MIN_INVERSE), math.log(MAX_INVERSE)
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    left_loss, right_loss = _loss(log_BK, labels_B, left), _loss(log_BK, labels_B, right)
    for _ in range(SEARCH_STEPS):
        if left_loss <= right_loss:
            high, right, right_loss = right, left, left_loss
            left = high - ratio * (high - low)
            left_loss = _loss(log_BK, labels_B, left)
        else:
            low, left, left_loss = left, right, right_loss
            right = low + ratio * (high - low)
            right_loss = _loss(log_BK, labels_B, right)
    return math.exp(-(low + high) / 2)


def measure_calibration(
    probs_BK: Floats, labels_B: Ids, *, fit_probs_BK: Floats, fit_labels_B: Ids, num_bins: int
) -> Calibration:
    """Calibration on one split, with a temperature fitted on another.

    Labels of classes the model does not know (``UNSEEN``) count as wrong where it is measured and are left out where
    it is fitted: they have no probability to raise.
    """
    known = fit_labels_B != UNSEEN
    num_fitted_on = int(known.sum())
    temperature = fit_temperature(fit_probs_BK[known], fit_labels_B[known]) if num_fitted_on else None
    before = after = None
    if len(labels_B):
        correct_B = probs_BK.argmax(axis=1) == labels_B
        before = expected_calibration_error(probs_BK.max(axis=1), correct_B, num_bins=num_bins)
        if temperature is not None:
            confidence_B = apply_temperature(probs_BK, temperature).max(axis=1)
            after = expected_calibration_error(confidence_B, correct_B, num_bins=num_bins)
    return Calibration(
        ece=before, temperature=temperature, ece_after=after, n=len(labels_B), num_fitted_on=num_fitted_on
    )


def _loss(log_BK: Floats, labels_B: Ids, log_inverse: float) -> float:
    scaled_BK = log_BK * math.exp(log_inverse)
    top_B = scaled_BK.max(axis=1)
    total_B = top_B + np.log(np.exp(scaled_BK - top_B[:, None]).sum(axis=1))
    return float(np.mean(total_B - scaled_BK[np.arange(len(labels_B)), labels_B]))
