"""Texts as encoders from elsewhere take them: with tokens of their own."""

from collections.abc import Mapping

import pyarrow as pa

from mm_assets.modalities.text.column import read
from mm_assets.modalities.text.tokenizer import BYTE_OFFSET


def collect(column: pa.Array, shape: Mapping[str, int]) -> list[str]:
    """The texts of a column without nulls; the bytes of a character that was cut in two are left out."""
    return [
        bytes(token - BYTE_OFFSET for token in read(value, shape).tolist() if token >= BYTE_OFFSET).decode(
            "utf-8", errors="ignore"
        )
        for value in column
    ]
