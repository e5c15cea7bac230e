"""Pictures in a pack: square patches."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt

SHAPE = ("image_size", "image_patch")
Length = TypeVar("Length", int, npt.NDArray[np.int64])


def count(length: Length, shape: Mapping[str, int]) -> Length:
    """Tokens of ``length`` pictures."""
    return length * patches(shape)


def patches(shape: Mapping[str, int]) -> int:
    """Tokens of one picture."""
    return (shape["image_size"] // shape["image_patch"]) ** 2


def values(tensor: npt.NDArray[np.uint8] | None, num_tokens: int, shape: Mapping[str, int]) -> npt.NDArray[np.uint8]:
    """The picture itself, [1, H, W, 3] (none for no tokens); black ones for a sample that is dead."""
    size = shape["image_size"]
    if tensor is None:
        return np.zeros((num_tokens // patches(shape), size, size, 3), np.uint8)
    return tensor[None]
