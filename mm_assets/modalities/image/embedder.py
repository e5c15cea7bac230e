"""Pictures as the training network's tokens: one per patch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mm_assets.modalities.image.tokens import patches


class Embedder(nn.Module):
    """Two strided convolutions, then one token per patch."""

    def __init__(self, config: Any, shape: Mapping[str, int]) -> None:
        super().__init__()
        first, second = config.stem_channels
        self.first = nn.Conv2d(3, first, 3, stride=2, padding=1)
        self.second = nn.Conv2d(first, second, 3, stride=2, padding=1)
        side = max(1, shape["image_patch"] // 4)
        self.patches = nn.Conv2d(second, config.width, side, stride=side)
        self.positions = nn.Parameter(torch.zeros(patches(shape), config.width))

    def forward(self, images_NHWC: Tensor, positions_X: Tensor) -> Tensor:
        """Tokens of all images, one after the other: [N * patches, W]."""
        del positions_X
        if len(images_NHWC) == 0:
            return self.positions.new_zeros((0, self.positions.shape[-1]))
        x = images_NHWC.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0
        x = self.patches(F.gelu(self.second(F.gelu(self.first(x)))))
        return (x.flatten(2).transpose(1, 2) + self.positions).reshape(-1, self.positions.shape[-1])
