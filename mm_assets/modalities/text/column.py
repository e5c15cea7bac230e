"""The column ``text`` of ``tensors.arrow``: token ids."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mm_assets.modalities.text.tokenizer import VOCAB_SIZE

ARROW_TYPE = pa.list_(pa.int32())


def read(value: pa.Scalar, shape: Mapping[str, int]) -> npt.NDArray[np.int32]:
    """Token ids [T]."""
    del shape
    return value.values.to_numpy(zero_copy_only=False).astype(np.int32)


def is_sound(value: pa.Scalar, shape: Mapping[str, int]) -> bool:
    """Whether there are tokens and all are in the vocabulary."""
    tokens = read(value, shape)
    return bool(len(tokens) and tokens.min() > 0 and tokens.max() < VOCAB_SIZE)
