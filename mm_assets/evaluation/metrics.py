"""Classification metrics over class ids, in plain numpy.

Legend: B samples, K classes. A label of ``UNSEEN`` is a class the model has no output for; such a sample counts and
is always wrong. The metric of zero samples is None.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
UNSEEN = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """Accuracy of ``n`` labelled samples; both numbers are None where ``n`` is 0."""

    accuracy: float | None
    balanced_accuracy: float | None
    n: int


def measure_accuracy(predicted_B: Ids, labels_B: Ids) -> Accuracy:
    """Plain and balanced accuracy of these samples."""
    if not len(labels_B):
        return Accuracy(accuracy=None, balanced_accuracy=None, n=0)
    return Accuracy(
        accuracy=float(np.mean(predicted_B == labels_B)),
        balanced_accuracy=balanced_accuracy(predicted_B, labels_B),
        n=len(labels_B),
    )


def balanced_accuracy(predicted_B: Ids, labels_B: Ids) -> float:
    """Mean over the classes present in ``labels_B`` of the share of that class's samples predicted as it.

    Classes without a sample do not count: a small slice is judged by the classes it holds. All labels of classes the
    model does not know form one class of recall 0.

    Args:
        predicted_B: Predicted class ids in [0, K).
        labels_B: True class ids in [0, K), or ``UNSEEN``.

    Raises:
        ValueError: B is 0, or the lengths differ.

    Source: Brodersen et al. 2010, "The balanced accuracy and its posterior distribution", doi:10.1109/ICPR.2010.764.
    """
    if not len(labels_B) or len(predicted_B) != len(labels_B):
        raise ValueError(
            f"balanced accuracy: expected as many predictions as labels, at least 1, "
            f"got {len(predicted_B)} and {len(labels_B)}."
        )
    _, class_B, counts_K = np.unique(labels_B, return_inverse=True, return_counts=True)
    hits_K = np.bincount(class_B, weights=predicted_B == labels_B, minlength=len(counts_K))
    return float(np.mean(hits_K / counts_K))
