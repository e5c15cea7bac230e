"""The column ``audio`` of ``tensors.arrow``: frames x ``num_mels`` float32, little-endian."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

ARROW_TYPE = pa.binary()


def read(value: pa.Scalar, shape: Mapping[str, int]) -> npt.NDArray[np.float32]:
    """Log-mel frames [F, M]."""
    frames = np.frombuffer(value.as_buffer(), "<f4").reshape(-1, shape["num_mels"])
    return frames.astype(np.float32, copy=False)


def is_sound(value: pa.Scalar, shape: Mapping[str, int]) -> bool:
    """Whether there are whole frames and all are finite."""
    buffer = value.as_buffer()
    if not buffer.size or buffer.size % (4 * shape["num_mels"]):
        return False
    return bool(np.isfinite(np.frombuffer(buffer, "<f4")).all())
