"""The column ``image`` of ``tensors.arrow``: ``image_size`` x ``image_size`` x 3 uint8, several below one another."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

ARROW_TYPE = pa.binary()


def read(value: pa.Scalar, shape: Mapping[str, int]) -> npt.NDArray[np.uint8]:
    """The picture [H, W, 3]; of several, H is their number times that of one."""
    return np.frombuffer(value.as_buffer(), np.uint8).reshape(-1, shape["image_size"], 3)


def is_sound(value: pa.Scalar, shape: Mapping[str, int]) -> bool:
    """Whether it is one picture of the declared size."""
    return len(value.as_buffer()) == shape["image_size"] ** 2 * 3
