"""Texts in a pack: a token is a token."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from mm_assets.modalities.text.tokenizer import BOS, BYTE_OFFSET, EOS, MASK, PAD, VOCAB_SIZE

SHAPE: tuple[str, ...] = ()
#: What a model's ``config.json`` says of its tokens.
TOKENIZER = {
    "kind": "bytes", "vocab_size": VOCAB_SIZE, "pad": PAD, "bos": BOS, "eos": EOS, "mask": MASK,
    "byte_offset": BYTE_OFFSET,
}  # fmt: skip
Length = TypeVar("Length", int, npt.NDArray[np.int64])


def count(length: Length, shape: Mapping[str, int]) -> Length:
    """Tokens of a text of ``length`` tokens."""
    del shape
    return length


def values(tensor: npt.NDArray[np.int32] | None, num_tokens: int, shape: Mapping[str, int]) -> npt.NDArray[np.int64]:
    """Token ids [num_tokens]; zeros for a sample that is dead."""
    del shape
    return np.zeros(num_tokens, np.int64) if tensor is None else tensor.astype(np.int64)
