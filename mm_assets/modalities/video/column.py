"""The column ``video`` of ``tensors.arrow``: the rows of ``frames``, by time in each clip."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from mm_assets.modalities.video.frames import Rows, row_bytes, times_us

ARROW_TYPE = pa.binary()
#: A year.
LONGEST_US = 366 * 86_400 * 1_000_000


def read(value: pa.Scalar, shape: Mapping[str, int]) -> Rows:
    """Rows [F, 8 + H x W x 3]."""
    return np.frombuffer(value.as_buffer(), np.uint8).reshape(-1, row_bytes(shape["video_size"]))


def is_sound(value: pa.Scalar, shape: Mapping[str, int]) -> bool:
    """Whether there are whole frames, each with a time that a video can have; a later part begins anew."""
    num_bytes = len(value.as_buffer())
    if not num_bytes or num_bytes % row_bytes(shape["video_size"]):
        return False
    times = times_us(read(value, shape))
    return bool((times >= 0).all() and (times < LONGEST_US).all())
