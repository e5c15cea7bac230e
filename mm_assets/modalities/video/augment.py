"""Random changes of clips in training: mirrored, shifted, coloured, all frames of a clip alike."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mm_assets.identity.randomness import keyed_rng
from mm_assets.modalities.image import augment as pictures
from mm_assets.modalities.video.frames import Rows, pixels, with_pixels

MAX_KEY = 1 << 50


def augment(rows_FB: Rows, config: Any, rng: np.random.Generator, lengths: Sequence[int]) -> Rows:
    """Changed copies of clips that have ``lengths`` frames."""
    if not len(rows_FB):
        return rows_FB
    clips = np.split(pixels(rows_FB), np.cumsum(lengths)[:-1])
    changed = [_clip(clip, config, int(rng.integers(MAX_KEY))) for clip in clips]
    return with_pixels(rows_FB, np.concatenate(changed))


def _clip(frames_FHWC: Rows, config: Any, key: int) -> Rows:
    """Every frame is changed by the same random numbers."""
    frames = [pictures.augment(frame[None], config, keyed_rng("video", key)) for frame in frames_FHWC]
    return np.concatenate(frames)
