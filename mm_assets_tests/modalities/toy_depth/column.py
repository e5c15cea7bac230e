"""The column ``depth`` of ``tensors.arrow``."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

ARROW_TYPE = pa.binary()


def read(value: pa.Scalar, shape: Mapping[str, int]) -> npt.NDArray[np.float32]:
    """Values [N]."""
    del shape
    return np.frombuffer(value.as_buffer(), "<f4").astype(np.float32)


def is_sound(value: pa.Scalar, shape: Mapping[str, int]) -> bool:
    """Whether all values are in range."""
    values = read(value, shape)
    return bool(len(values) and (values >= 0).all() and (values <= 1).all())
