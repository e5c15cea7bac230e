"""Scores of one judged run over the samples: overall, and for every value of every slice.

A slice shares out the samples: each belongs to exactly one value of it, so the counts of its values add up.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mm_assets.errors import StageError
from mm_assets.evaluation.metrics import UNSEEN, Accuracy, Ids, measure_accuracy
from mm_assets.evaluation.report import CorruptionScore, SliceScore, rounded, score
from mm_assets.evaluation.rows import Row

#: Value of a sample that lacks what the slice is about.
NONE = "(none)"
SLICES: dict[str, Callable[[Row], str]] = {
    "modalities": lambda row: row.combination or NONE,
    "language": lambda row: row.language or NONE,
    "label": lambda row: row.label if row.label is not None else NONE,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """Samples with what the model said about them; probabilities are [B, K] and K is 0 without classes."""

    rows: Sequence[Row]
    probs_BK: NDArray[np.float64]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.probs_BK.shape != (len(self.rows), len(self.classes)):
            raise StageError(
                f"predictions: have the wrong shape: expected {(len(self.rows), len(self.classes))}, "
                f"got {self.probs_BK.shape}. The network does not fit its configuration."
            )
        if not np.isfinite(self.probs_BK).all():
            bad = int(np.flatnonzero(~np.isfinite(self.probs_BK).all(axis=1))[0])
            raise StageError(
                f"sample {self.rows[bad].id}: its probabilities are not finite. The model's weights are unusable; "
                "train it again with a smaller learning rate."
            )

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which samples can be judged: those with a label, if the model has classes at all."""
        return np.array([bool(self.classes) and row.label is not None for row in self.rows], np.bool_)

    @property
    def label_ids(self) -> Ids:
        """Class id per sample; ``UNSEEN`` for no label and for labels the model does not know."""
        position = {name: index for index, name in enumerate(self.classes)}
        ids = [UNSEEN if row.label is None else position.get(row.label, UNSEEN) for row in self.rows]
        return np.array(ids, np.int64)

    @property
    def predicted_ids(self) -> Ids:
        """Most probable class per sample; the first of equals."""
        if not self.classes:
            return np.full(len(self.rows), UNSEEN, np.int64)
        return self.probs_BK.argmax(axis=1).astype(np.int64)

    def score(self, members: NDArray[np.bool_] | None = None) -> Accuracy:
        """Accuracy over the labelled samples, or over those of them in ``members``."""
        chosen = self.labelled if members is None else self.labelled & members
        return measure_accuracy(self.predicted_ids[chosen], self.label_ids[chosen])

    def select(self, indices: Sequence[int]) -> "Judged":
        """Only the samples at ``indices``."""
        return Judged(
            rows=[self.rows[index] for index in indices],
            probs_BK=self.probs_BK[np.asarray(indices, np.int64)],
            classes=self.classes,
        )


def measure_slices(judged: Judged) -> list[SliceScore]:
    """One score per value of every slice, sorted by value."""
    scores: list[SliceScore] = []
    for name, value_of in SLICES.items():
        values = np.array([value_of(row) for row in judged.rows], dtype=object)
        for value in sorted(set(values)):
            members = values == value
            own = score(judged.score(members))
            scores.append(SliceScore(slice=name, value=value, num_samples=int(members.sum()), **own.model_dump()))
    return scores


def corruption_score(
    clean: Judged, damaged: Judged, indices: Sequence[int], corruption: str, severity: int
) -> CorruptionScore:
    """Samples judged under a corruption, next to the same samples (``indices`` of ``clean``) undamaged."""
    before = clean.select(indices).score()
    return CorruptionScore(
        corruption=corruption,
        severity=severity,
        num_samples=len(indices),
        clean_accuracy=rounded(before.accuracy),
        clean_balanced_accuracy=rounded(before.balanced_accuracy),
        **score(damaged.score()).model_dump(),
    )
