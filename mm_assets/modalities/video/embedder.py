"""Clips as the training network's tokens: the patches of each frame as those of a picture, and when it is shown."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mm_assets.modalities.image.embedder import Embedder as PictureEmbedder
from mm_assets.modalities.video.frames import TIME_BYTES
from mm_assets.modalities.video.tokens import patches

#: Times are seen as waves of these periods: a frame rate's to some minutes.
SHORTEST_S, LONGEST_S, NUM_PERIODS = 0.1, 200.0, 12


class Embedder(nn.Module):
    """The embedder of pictures, and a linear map of a frame's time.

    Source of the waves: Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    """

    frequencies: Tensor

    def __init__(self, config: Any, shape: Mapping[str, int]) -> None:
        super().__init__()
        self.size, self.patches_per_frame = shape["video_size"], patches(shape)
        self.pictures = PictureEmbedder(config, {"image_size": self.size, "image_patch": shape["video_patch"]})
        self.times = nn.Linear(2 * NUM_PERIODS, config.width)
        ratio = (LONGEST_S / SHORTEST_S) ** (1 / (NUM_PERIODS - 1))
        periods = [SHORTEST_S * ratio**number for number in range(NUM_PERIODS)]
        frequencies = torch.tensor([2 * math.pi / period for period in periods])
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, rows_FB: Tensor, positions_X: Tensor) -> Tensor:
        """Tokens of all frames, one after the other: [F * patches, W]."""
        times_FB, pixels_FB = rows_FB.split([TIME_BYTES, rows_FB.shape[1] - TIME_BYTES], dim=1)
        images_FHWC = pixels_FB.reshape(-1, self.size, self.size, 3)
        x_XW = self.pictures(images_FHWC, positions_X)
        if not len(rows_FB):
            return x_XW
        seconds_F1 = times_FB.clone(memory_format=torch.contiguous_format).view(torch.int64).to(torch.float32) / 1e6
        angle_FN = seconds_F1 * self.frequencies
        at_FW = self.times(torch.cat([angle_FN.sin(), angle_FN.cos()], dim=1))
        return x_XW + at_FW.repeat_interleave(self.patches_per_frame, dim=0)
