"""The bootstrap encoder's view: the values themselves."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch
from mm_assets.modalities.depth.bootstrap import LENGTH
from torch import Tensor, nn


def collect(column: pa.Array, shape: Mapping[str, int]) -> tuple[Tensor, ...]:
    """Values [B, 64], zero-padded."""
    del shape
    rows = np.zeros((len(column), LENGTH), np.float32)
    for row, value in enumerate(column):
        values = np.frombuffer(value.as_buffer(), "<f4")
        rows[row, : len(values)] = values
    return (torch.from_numpy(rows),)


def misfit(shape: Mapping[str, int]) -> str | None:
    """Nothing is expected."""
    del shape
    return None


class Descriptor(nn.Module):
    """A projection of whole numbers."""

    projection: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.register_buffer("projection", tensors["projection"].double())

    def forward(self, values_BN: Tensor) -> Tensor:
        """float64 [B, D]."""
        return torch.round(values_BN.double() * 255.0) @ self.projection
