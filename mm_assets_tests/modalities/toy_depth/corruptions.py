"""Damage to profiles."""

import numpy as np


def _zeros(values: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A share of the values becomes 0."""
    return np.where(rng.random(len(values)) < severity / 6, np.float32(0), values)


CORRUPTIONS = {"depth_zeros": _zeros}
