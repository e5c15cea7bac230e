"""The bootstrap encoder's view of clips: the mean picture and where it moves, exact in any order.

Shape legend: B samples, F frames, H and W pixels, C channels, N descriptor values, D embedding.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from mm_assets.modalities.descriptors import padded, scaled
from mm_assets.modalities.image.descriptor import DCT_SIDE, GRID, basis, cells, describe
from mm_assets.modalities.video.column import read
from mm_assets.modalities.video.frames import pixels


def collect(column: pa.Array, shape: Mapping[str, int]) -> tuple[Tensor, ...]:
    """The inputs of ``Descriptor`` for the values of a column without nulls."""
    clips = [pixels(read(value, shape)) for value in column]
    return torch.from_numpy(np.ascontiguousarray(padded(clips))), torch.tensor([len(clip) for clip in clips])


def misfit(shape: Mapping[str, int]) -> str | None:
    """What is expected of the tensors and not so."""
    if shape["video_size"] % DCT_SIDE:
        return f"a video size divisible by {DCT_SIDE}, got {shape['video_size']}"
    return None


class Descriptor(nn.Module):
    """What ``image/descriptor`` says of the mean picture, and the mean change from frame to frame, per cell."""

    basis: Tensor
    projection: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.register_buffer("projection", tensors["projection"].double())
        self.register_buffer("basis", basis(), persistent=False)

    def forward(self, frames_BFHWC: Tensor, length_B: Tensor) -> Tensor:
        """uint8 clips, padded with zeros, and their numbers of frames (at least 1) to float64 [B, D]."""
        count_B111 = length_B[:, None, None, None]
        mean_BHWC = torch.div(frames_BFHWC.sum(1), count_B111, rounding_mode="floor")
        steps = frames_BFHWC.short().diff(dim=1).abs().long()
        goes_on_BF = torch.arange(1, frames_BFHWC.shape[1], device=length_B.device) < length_B[:, None]
        change_BHWC = (steps * goes_on_BF[:, :, None, None, None]).sum(1)
        change_BHWC = torch.div(change_BHWC, (count_B111 - 1).clamp(min=1), rounding_mode="floor")
        movement_BN = scaled(cells(change_BHWC, GRID).flatten(1))
        return torch.cat([describe(mean_BHWC, self.basis), movement_BN], dim=1) @ self.projection
