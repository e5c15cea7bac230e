"""Pictures as encoders from elsewhere take them.

Shape legend: B pictures, H and W pixels, C channels.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mm_assets.modalities.image.column import read


def collect(column: pa.Array, shape: Mapping[str, int]) -> npt.NDArray[np.float32]:
    """The pictures [B, C, H, W] of a column without nulls, from 0 to 1."""
    pixels_BHWC = np.stack([read(value, shape) for value in column])
    return np.ascontiguousarray(pixels_BHWC.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255.0)
