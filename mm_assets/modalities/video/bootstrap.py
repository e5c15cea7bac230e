"""The clip's share of the bootstrap encoder."""

import numpy as np
import numpy.typing as npt

from mm_assets.modalities.image.bootstrap import BLOCKS as PICTURE_BLOCKS
from mm_assets.modalities.keyed_tensors import signs

#: Lengths of the blocks that ``descriptor`` computes, in its order.
BLOCKS = {"mean": sum(PICTURE_BLOCKS.values()), "movement": 48}


def make_tensors(dim: int) -> dict[str, npt.NDArray[np.int8] | npt.NDArray[np.int64]]:
    """The projection of the descriptor."""
    return {"projection": signs("video.projection", sum(BLOCKS.values()), dim)}
