"""Damage to clips, of known strength: severities from 1 (hardly noticeable) to 5.

- ``video_low_light``: each frame as ``image_low_light``.
- ``video_lost_frames``: a share of the frames is black.
- ``video_shuffled_time``: a share of the frames change places; their times stay.
"""

import math

import numpy as np

from mm_assets.modalities.image.corruptions import CORRUPTIONS as OF_PICTURES
from mm_assets.modalities.video.frames import Rows, pixels, with_pixels

LOST_SHARE = (0.1, 0.25, 0.4, 0.6, 0.8)
MOVED_SHARE = (0.2, 0.4, 0.6, 0.8, 1.0)


def _low_light(rows: Rows, severity: int, rng: np.random.Generator) -> Rows:
    darker = [OF_PICTURES["image_low_light"](picture, severity, rng) for picture in pixels(rows)]
    return with_pixels(rows, np.stack(darker))


def _lost_frames(rows: Rows, severity: int, rng: np.random.Generator) -> Rows:
    damaged = pixels(rows).copy()
    damaged[rng.permutation(len(rows))[: math.ceil(len(rows) * LOST_SHARE[severity - 1])]] = 0
    return with_pixels(rows, damaged)


def _shuffled_time(rows: Rows, severity: int, rng: np.random.Generator) -> Rows:
    places = np.sort(rng.permutation(len(rows))[: math.ceil(len(rows) * MOVED_SHARE[severity - 1])])
    damaged = pixels(rows).copy()
    damaged[places] = damaged[rng.permutation(places)]
    return with_pixels(rows, damaged)


CORRUPTIONS = {
    "video_low_light": _low_light,
    "video_lost_frames": _lost_frames,
    "video_shuffled_time": _shuffled_time,
}
