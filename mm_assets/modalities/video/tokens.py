"""Clips in a pack: square patches, frame by frame."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from mm_assets.modalities.video.frames import Rows, row_bytes

SHAPE = ("video_size", "video_patch")
Length = TypeVar("Length", int, npt.NDArray[np.int64])


def count(length: Length, shape: Mapping[str, int]) -> Length:
    """Tokens of a clip of ``length`` frames."""
    return length * patches(shape)


def patches(shape: Mapping[str, int]) -> int:
    """Tokens of one frame."""
    return (shape["video_size"] // shape["video_patch"]) ** 2


def values(tensor: Rows | None, num_tokens: int, shape: Mapping[str, int]) -> Rows:
    """The rows of the clip; zeros for a sample that is dead."""
    if tensor is None:
        return np.zeros((num_tokens // patches(shape), row_bytes(shape["video_size"])), np.uint8)
    return tensor
