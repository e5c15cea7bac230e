"""A clip in memory and in files: a row of bytes per frame, its time (int64 microseconds, little-endian), then RGB.

Times are relative to the start of the time range, and so is the sound that comes with it.
"""

import numpy as np
import numpy.typing as npt

TIME_BYTES = 8

Rows = npt.NDArray[np.uint8]


def row_bytes(size: int) -> int:
    """Bytes of a frame of ``size`` x ``size`` pixels."""
    return TIME_BYTES + size * size * 3


def frame_size(rows: Rows) -> int:
    """Height and width of the frames."""
    return round(((rows.shape[1] - TIME_BYTES) / 3) ** 0.5)


def times_us(rows: Rows) -> npt.NDArray[np.int64]:
    """Times [F]."""
    return np.ascontiguousarray(rows[:, :TIME_BYTES]).view("<i8")[:, 0].astype(np.int64)


def pixels(rows: Rows) -> Rows:
    """Pictures [F, H, W, 3]."""
    size = frame_size(rows)
    return rows[:, TIME_BYTES:].reshape(len(rows), size, size, 3)


def with_pixels(rows: Rows, pictures_FHWC: Rows) -> Rows:
    """The same times with other pictures."""
    return np.concatenate([rows[:, :TIME_BYTES], pictures_FHWC.reshape(len(rows), -1)], axis=1)
