"""Clips as encoders from elsewhere take them: the usual logarithm of power per mel band, by the same units."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mm_assets.modalities.audio.column import read


def collect(column: pa.Array, shape: Mapping[str, int]) -> list[npt.NDArray[np.float32]]:
    """log10 of band power, frames x mels of each clip of a column without nulls: ``mel.log_mel`` without its scale."""
    return [np.float32(4.0) * read(value, shape) - np.float32(4.0) for value in column]
