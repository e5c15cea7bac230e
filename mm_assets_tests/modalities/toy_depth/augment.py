"""No random changes."""

from collections.abc import Sequence

import numpy as np


def augment(values: np.ndarray, config: object, rng: np.random.Generator, lengths: Sequence[int]) -> np.ndarray:
    """The values."""
    del config, rng, lengths
    return values
