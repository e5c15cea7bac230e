"""The text's share of the bootstrap encoder."""

import numpy as np
import numpy.typing as npt

from mm_assets.modalities.keyed_tensors import multipliers, signs

BUCKETS = 4096
NGRAMS = (2, 3, 4, 5)


def make_tensors(dim: int) -> dict[str, npt.NDArray[np.int8] | npt.NDArray[np.int64]]:
    """One row per bucket, and the multipliers of the hash that chooses a bucket."""
    return {
        "multipliers": multipliers("text.multipliers", len(NGRAMS), max(NGRAMS)),
        "projection": signs("text.projection", BUCKETS, dim),
    }
