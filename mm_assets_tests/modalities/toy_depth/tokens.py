"""Profiles in a pack: stacks of four values, the last padded."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt

SHAPE: tuple[str, ...] = ()
STACK = 4
Length = TypeVar("Length", int, npt.NDArray[np.int64])


def count(length: Length, shape: Mapping[str, int]) -> Length:
    """Tokens of ``length`` values."""
    del shape
    return -(-length // STACK)


def values(
    tensor: npt.NDArray[np.float32] | None, num_tokens: int, shape: Mapping[str, int]
) -> npt.NDArray[np.float32]:
    """Stacks [num_tokens, 4]."""
    del shape
    flat = np.zeros(num_tokens * STACK, np.float32)
    if tensor is not None:
        flat[: len(tensor)] = tensor
    return flat.reshape(num_tokens, STACK)
