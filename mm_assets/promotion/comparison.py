"""The candidate against the champion: balanced accuracy on the same samples, and how sure the difference is.

A pure function of two tables of predictions. Legend: B shared samples, K classes, R resamples.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mm_assets.identity.randomness import keyed_rng
from mm_assets.promotion.config import Disabled, Production

#: Columns of ``predictions.parquet`` that are read.
COLUMNS = ("id", "label", "predicted", "corruption")
NUM_RESAMPLES = 10_000
DECIMALS = 6

Outcome = Literal[
    "no_champion", "same_model", "not_worse", "worse", "not_enough_evidence", "not_applicable", "disabled"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What came of it. ``difference`` is candidate minus champion; both numbers are None where nothing was compared."""

    outcome: Outcome
    reason: str
    num_shared: int = 0
    difference: float | None = None
    interval: tuple[float, float] | None = None


def compare_with_champion(
    candidate: pa.Table,
    champion: pa.Table | None,
    rules: Production | Disabled,
    *,
    is_same_model: bool = False,
) -> Comparison:
    """Whether the candidate is worse than the model in production by more than chance and ``rules`` allow.

    Paired: only samples count that both were evaluated on undamaged, with the same label. A sample whose label was
    changed between the two is left out.

    Args:
        candidate: Predictions of the candidate's evaluation, with ``COLUMNS``.
        champion: The same of the model in production, or None if there is none.
        rules: The section ``production`` of the thresholds.
        is_same_model: Whether both models have the same content.
    """
    if isinstance(rules, Disabled):
        return Comparison(outcome="disabled", reason=rules.disabled)
    if champion is None:
        return Comparison(outcome="no_champion", reason="no model is in production")
    if is_same_model:
        reason = "the model in production has the same content"
        return Comparison(outcome="same_model", reason=reason, difference=0.0, interval=(0.0, 0.0))
    mine, theirs = _labelled(candidate), _labelled(champion)
    if not mine and not theirs:
        return Comparison(outcome="not_applicable", reason="neither evaluation has a labelled sample")
    pairs = [
        (label, predicted == label, theirs[sample][1] == label)
        for sample, (label, predicted) in sorted(mine.items())
        if sample in theirs and theirs[sample][0] == label
    ]
    if len(pairs) < rules.min_samples:
        reason = (
            f"not enough evidence: {len(pairs)} labelled samples are shared with the evaluation of the model in "
            f"production, at least {rules.min_samples} needed"
        )
        return Comparison(outcome="not_enough_evidence", reason=reason, num_shared=len(pairs))
    _, class_B = np.unique([label for label, _, _ in pairs], return_inverse=True)
    gained_B = np.array([int(own) - int(other) for _, own, other in pairs], np.int64)
    difference, (low, high) = paired_difference(gained_B, class_B, confidence=rules.confidence)
    is_worse = high < -rules.max_loss
    reason = (
        f"balanced accuracy {difference:+.3f} against the model in production on {len(pairs)} shared samples, "
        f"{rules.confidence:.4g} interval {low:+.3f} to {high:+.3f}; a loss of {rules.max_loss:g} is allowed"
    )
    return Comparison(
        outcome="worse" if is_worse else "not_worse",
        reason=reason,
        num_shared=len(pairs),
        difference=difference,
        interval=(low, high),
    )


def paired_difference(
    gained_B: NDArray[np.int64], class_B: NDArray[np.int64], *, confidence: float
) -> tuple[float, tuple[float, float]]:
    """The difference of two balanced accuracies on the same samples, and its percentile bootstrap interval.

    Samples are drawn again within their class, so that every resample has the classes of the original. What a
    resample of a class comes to depends only on how many samples were gained and lost in it, so those two counts are
    drawn (multinomial) and not the samples. The stream of random numbers is fixed: equal tables, equal interval.

    Args:
        gained_B: Per sample 1 if only the candidate was right, -1 if only the champion was, 0 otherwise.
        class_B: Class ids in [0, K), each with at least one sample.
        confidence: Of the interval, in (0, 1).

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13 (percentile interval); Davison
    and Hinkley 1997, "Bootstrap Methods and their Application", section 3.2 (several samples).
    """
    counts_K = np.bincount(class_B)
    won_K = np.bincount(class_B, weights=gained_B > 0).astype(np.int64)
    lost_K = np.bincount(class_B, weights=gained_B < 0).astype(np.int64)
    rng = keyed_rng("promotion.comparison", NUM_RESAMPLES)
    sums_R = np.zeros(NUM_RESAMPLES)
    for count, won, lost in zip(counts_K.tolist(), won_K.tolist(), lost_K.tolist(), strict=True):
        shares = [won / count, lost / count, (count - won - lost) / count]
        drawn_R3 = rng.multinomial(count, shares, size=NUM_RESAMPLES)
        sums_R += (drawn_R3[:, 0] - drawn_R3[:, 1]) / count
    tail = (1 - confidence) / 2
    low, high = np.quantile(sums_R / len(counts_K), [tail, 1 - tail])
    difference = float(np.mean((won_K - lost_K) / counts_K))
    return _rounded(difference), (_rounded(float(low)), _rounded(float(high)))


def _rounded(value: float) -> float:
    # Adding 0.0 turns -0.0 into 0.0, which canonical JSON would tell apart.
    return round(value, DECIMALS) + 0.0


def _labelled(predictions: pa.Table) -> dict[str, tuple[str, str | None]]:
    """Label and prediction of every undamaged labelled sample, by id."""
    clean = predictions.select(list(COLUMNS)).filter(pc.equal(predictions["corruption"], ""))  # pyright: ignore[reportAttributeAccessIssue]
    columns = (clean[name].to_pylist() for name in ("id", "label", "predicted"))
    return {sample: (label, said) for sample, label, said in zip(*columns, strict=True) if label is not None}
