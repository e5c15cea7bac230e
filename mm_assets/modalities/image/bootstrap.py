"""The picture's share of the bootstrap encoder."""

import numpy as np
import numpy.typing as npt

from mm_assets.modalities.keyed_tensors import signs

#: Lengths of the blocks that ``descriptor`` computes, in its order.
BLOCKS = {"colour": 48, "gradients": 128, "frequencies": 63}


def make_tensors(dim: int) -> dict[str, npt.NDArray[np.int8] | npt.NDArray[np.int64]]:
    """The projection of the descriptor."""
    return {"projection": signs("image.projection", sum(BLOCKS.values()), dim)}
