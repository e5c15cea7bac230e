"""Random changes of texts in training: bytes hidden behind MASK."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mm_assets.modalities.text.tokenizer import BYTE_OFFSET, MASK


def augment(tokens_X: np.ndarray, config: Any, rng: np.random.Generator, lengths: Sequence[int] = ()) -> np.ndarray:
    """Changed copies, each value by numbers of its own."""
    del lengths
    hit = rng.random(len(tokens_X)) < config.byte_mask
    return np.where(hit & (tokens_X >= BYTE_OFFSET), MASK, tokens_X)
