"""Clips in a pack: stacks of neighbouring log-mel frames."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt

SHAPE = ("num_mels", "audio_stack")
Length = TypeVar("Length", int, npt.NDArray[np.int64])


def count(length: Length, shape: Mapping[str, int]) -> Length:
    """Tokens of a clip of ``length`` frames."""
    return -(-length // shape["audio_stack"])


def values(
    tensor: npt.NDArray[np.float32] | None, num_tokens: int, shape: Mapping[str, int]
) -> npt.NDArray[np.float32]:
    """Stacks of frames [num_tokens, stack x mels], zero-padded; zeros for a sample that is dead."""
    stack, mels = shape["audio_stack"], shape["num_mels"]
    frames_FM = np.zeros((num_tokens * stack, mels), np.float32)
    if tensor is not None:
        frames_FM[: len(tensor)] = tensor
    return frames_FM.reshape(num_tokens, stack * mels)
