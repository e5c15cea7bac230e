"""The discrete cosine transform in integers."""

from functools import cache

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@cache
def dct_basis(size: int, count: int) -> Ints:
    """The first ``count`` DCT-II vectors of length ``size``, as integers in [-1024, 1024]."""
    angles = (2 * np.arange(size) + 1) * np.arange(count)[:, None] * (np.pi / (2 * size))
    return np.round(1024 * np.cos(angles)).astype(np.int64)
