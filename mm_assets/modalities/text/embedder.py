"""Texts as the training network's tokens: bytes, positions and hashed n-grams.

Source of the n-grams: Byte Latent Transformer (Pagnoni et al. 2024, arXiv:2412.09871), section 3.2.1.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mm_assets.modalities.text.tokenizer import VOCAB_SIZE

HASH_PRIME = 1_000_003


class Embedder(nn.Module):
    """A byte, its position, and the hashed n-grams that end at it; an n-gram never looks ahead."""

    vocab_size = VOCAB_SIZE

    def __init__(self, config: Any, shape: Mapping[str, int]) -> None:
        super().__init__()
        del shape
        self.ngrams = config.ngrams
        self.buckets = config.ngram_buckets
        self.bytes = nn.Embedding(VOCAB_SIZE, config.width)
        self.positions = nn.Embedding(config.max_positions, config.width)
        self.tables = nn.ModuleList(nn.Embedding(config.ngram_buckets, config.width) for _ in config.ngrams)

    def forward(self, tokens_X: Tensor, positions_X: Tensor) -> Tensor:
        """[X, W] for the texts of a batch, one after the other.

        An n-gram stops at its text's first token, so it never reaches another sample.
        """
        x_XW = self.bytes(tokens_X) + self.positions(positions_X.clamp(max=self.positions.num_embeddings - 1))
        for size, table in zip(self.ngrams, self.tables, strict=True):
            x_XW = x_XW + table(self._hash(tokens_X, positions_X, size))
        return x_XW

    def _hash(self, tokens: Tensor, positions: Tensor, size: int) -> Tensor:
        value = tokens + 1
        for back in range(1, size):
            earlier = torch.where(positions >= back, tokens.roll(back) + 1, 0)
            value = (value * HASH_PRIME + earlier) % (1 << 31)
        return (value ^ (value >> 13)) % self.buckets
