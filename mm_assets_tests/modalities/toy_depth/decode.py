"""Toy files as numbers."""

import numpy as np
import numpy.typing as npt
from mm_assets.modalities.depth.header import MAGIC, inspect_header

from mm_assets.modalities.reasons import BlobRejectedError, Refusal


def decode(data: bytes, config: object) -> npt.NDArray[np.float32]:
    """Values in [0, 1]. A value of 255 stands for a sensor that failed."""
    found = inspect_header(data, config)
    if isinstance(found, Refusal):
        raise BlobRejectedError(found)
    values = np.frombuffer(data, np.uint8, offset=len(MAGIC))
    if (values == 255).any():
        raise BlobRejectedError(Refusal("not_finite", "a value is missing"))
    return values.astype(np.float32) / 255.0
