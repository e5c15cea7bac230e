"""Random changes of pictures in training: mirrored, shifted, coloured."""

from collections.abc import Sequence
from typing import Any

import numpy as np

WHITE = 255


def augment(images_NHWC: np.ndarray, config: Any, rng: np.random.Generator, lengths: Sequence[int] = ()) -> np.ndarray:
    """Changed copies, each value by numbers of its own."""
    del lengths
    return _colour(_shift(_flip(images_NHWC, config, rng), config, rng), config, rng)


def _flip(images: np.ndarray, config: Any, rng: np.random.Generator) -> np.ndarray:
    flipped = rng.random(len(images)) < config.flip
    return np.where(flipped[:, None, None, None], images[:, :, ::-1], images)


def _shift(images: np.ndarray, config: Any, rng: np.random.Generator) -> np.ndarray:
    if not config.shift or not len(images):
        return images
    margin = config.shift
    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)), constant_values=WHITE)
    offsets = rng.integers(0, 2 * margin + 1, (len(images), 2))
    height, width = images.shape[1:3]
    return np.stack([image[y : y + height, x : x + width] for image, (y, x) in zip(padded, offsets, strict=True)])


def _colour(images: np.ndarray, config: Any, rng: np.random.Generator) -> np.ndarray:
    factors = 1.0 + config.colour * rng.uniform(-1.0, 1.0, (len(images), 1, 1, 3))
    return np.clip(images * factors, 0, 255).astype(np.uint8)
