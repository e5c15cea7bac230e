"""Profiles as tokens."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class Embedder(nn.Module):
    """A linear map of each stack."""

    def __init__(self, config: Any, shape: Mapping[str, int]) -> None:
        super().__init__()
        del shape
        self.values = nn.Linear(4, config.width)

    def forward(self, stacks_X4: Tensor, positions_X: Tensor) -> Tensor:
        """[X, W]."""
        del positions_X
        return self.values(stacks_X4)
