"""Random changes of clips in training: noise, and stacks left out."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def augment(stacks_AF: np.ndarray, config: Any, rng: np.random.Generator, lengths: Sequence[int] = ()) -> np.ndarray:
    """Changed copies, each value by numbers of its own."""
    del lengths
    noisy = stacks_AF + config.audio_noise * rng.standard_normal(stacks_AF.shape, np.float32)
    kept = rng.random((len(stacks_AF), 1)) >= config.audio_mask
    return (noisy * kept).astype(np.float32)
