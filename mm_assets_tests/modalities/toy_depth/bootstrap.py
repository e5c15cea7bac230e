"""The share of the bootstrap encoder."""

import numpy as np
import numpy.typing as npt

from mm_assets.modalities.keyed_tensors import signs

LENGTH = 64


def make_tensors(dim: int) -> dict[str, npt.NDArray[np.int8]]:
    """The projection of the first values."""
    return {"projection": signs("depth.projection", LENGTH, dim)}
