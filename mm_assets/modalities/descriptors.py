"""What the descriptors of several modalities share: blocks of whole numbers, and arrays of different lengths as one.

Shape legend: B samples, N descriptor values.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Length every descriptor block is scaled to before it is rounded: large enough to keep three digits.
BLOCK_LENGTH = 1024.0


def scaled(block_BN: Tensor) -> Tensor:
    """Rows scaled to length ``BLOCK_LENGTH`` and rounded to whole numbers; a row of zeros stays one.

    Values are rounded before their squares are summed, so that the sum is exact.
    """
    whole = torch.round(block_BN.double())
    length = torch.sqrt((whole * whole).sum(1, keepdim=True)).clamp(min=1.0)
    return torch.round(whole * BLOCK_LENGTH / length)


def padded(arrays: list[Any]) -> Any:
    """Arrays of different first lengths as one, filled with zeros."""
    longest = max(len(array) for array in arrays)
    padded = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in enumerate(arrays):
        padded[row, : len(array)] = array
    return padded
