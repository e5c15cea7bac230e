"""Clips as the training network's tokens: stacks of log-mel frames."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class Embedder(nn.Module):
    """A linear map of each stack, and its position."""

    def __init__(self, config: Any, shape: Mapping[str, int]) -> None:
        super().__init__()
        self.frames = nn.Linear(shape["audio_stack"] * shape["num_mels"], config.width)
        self.positions = nn.Embedding(config.max_positions, config.width)

    def forward(self, stacks_AF: Tensor, positions_A: Tensor) -> Tensor:
        """[A, W] for the clips of a batch, one after the other."""
        return self.frames(stacks_AF) + self.positions(positions_A.clamp(max=self.positions.num_embeddings - 1))
