"""The bootstrap encoder's view of pictures: a classical descriptor and a fixed projection, exact in any order.

Shape legend: B samples, T frames, H and W pixels, C channels, M mel bands, N descriptor values, D embedding.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from mm_assets.modalities.descriptors import scaled
from mm_assets.modalities.image.dct import dct_basis

GRID = 4
DCT_SIDE, DCT_KEPT = 16, 8


def collect(column: pa.Array, shape: Mapping[str, int]) -> tuple[Tensor, ...]:
    """The inputs of ``Descriptor`` for the values of a column without nulls."""
    pixels = np.stack([np.frombuffer(value.as_buffer(), np.uint8) for value in column])
    size = shape["image_size"]
    return (torch.from_numpy(pixels.reshape(-1, size, size, 3)),)


def misfit(shape: Mapping[str, int]) -> str | None:
    """What is expected of the tensors and not so."""
    if shape["image_size"] % DCT_SIDE:
        return f"an image size divisible by {DCT_SIDE}, got {shape['image_size']}"
    return None


class Descriptor(nn.Module):
    """Colour per cell, gradient directions per cell and low frequencies of a square RGB picture.

    Source: the cells of HOG (Dalal and Triggs 2005) with eight octants of direction, and the DCT of luma.
    """

    basis: Tensor
    projection: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.register_buffer("projection", tensors["projection"].double())
        self.register_buffer("basis", basis(), persistent=False)

    def forward(self, image_BHWC: Tensor) -> Tensor:
        """uint8 pictures (H = W, a multiple of 16) to float64 whole numbers [B, D]."""
        return describe(image_BHWC.long(), self.basis) @ self.projection


def basis() -> Tensor:
    """What ``describe`` needs, float64."""
    return torch.from_numpy(dct_basis(DCT_SIDE, DCT_KEPT)).double()


def describe(pixels_BHWC: Tensor, basis: Tensor) -> Tensor:
    """The blocks of int64 pictures as float64 whole numbers [B, N]."""
    luma_BHW = (pixels_BHWC * pixels_BHWC.new_tensor([77, 150, 29])).sum(-1) >> 8
    return torch.cat(
        [
            scaled(cells(pixels_BHWC - 128, GRID).flatten(1)),
            scaled(cells(_octants(luma_BHW), GRID).flatten(1)),
            scaled(_frequencies(luma_BHW, basis)),
        ],
        dim=1,
    )


def _frequencies(luma_BHW: Tensor, basis: Tensor) -> Tensor:
    small = cells(luma_BHW.unsqueeze(-1), DCT_SIDE).squeeze(-1).double()
    coefficients = basis @ small @ basis.T
    # The basis holds 1024 times the cosines, twice; dividing keeps the squares below 2**53.
    return torch.round(coefficients.flatten(1)[:, 1:] / (1024.0 * 1024.0))


def cells(values_BHWC: Tensor, grid: int) -> Tensor:
    """Sums over ``grid`` x ``grid`` cells: [B, grid, grid, C]."""
    batch, height, width, channels = values_BHWC.shape
    return values_BHWC.reshape(batch, grid, height // grid, grid, width // grid, channels).sum((2, 4))


def _octants(luma_BHW: Tensor) -> Tensor:
    """|gx| + |gy| of every inner pixel, in the channel of its gradient's octant: [B, H, W, 8]; the border is 0."""
    gx = nn.functional.pad(luma_BHW[:, 1:-1, 2:] - luma_BHW[:, 1:-1, :-2], (1, 1, 1, 1))
    gy = nn.functional.pad(luma_BHW[:, 2:, 1:-1] - luma_BHW[:, :-2, 1:-1], (1, 1, 1, 1))
    octant = (gx >= 0).long() + 2 * (gy >= 0).long() + 4 * (gx.abs() >= gy.abs()).long()
    magnitude = gx.abs() + gy.abs()
    return nn.functional.one_hot(octant, 8) * magnitude.unsqueeze(-1)
