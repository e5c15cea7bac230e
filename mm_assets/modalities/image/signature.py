"""The signature of a picture, a perceptual hash: its low frequencies in brightness and colour.

It stays nearly the same when a picture is compressed, scaled or cropped by a pixel. ``nearness`` compares signatures.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from mm_assets.modalities.image.dct import dct_basis
from mm_assets.modalities.image.decode import DecodedImage
from mm_assets.modalities.image.signature_format import CHROMA, LUMA, SIDE, STEPS

Floats = npt.NDArray[np.float64]


def signature(image: DecodedImage) -> bytes:
    """``SIZE`` int16, little-endian: coefficients of the orthonormal DCT of ``SIDE`` x ``SIDE`` YCbCr.

    The Euclidean distance of two signatures is ``STEPS`` times the root-mean-square difference of the two pictures,
    as far as these frequencies go.
    """
    small = image.scaled((SIDE, SIDE)).convert("YCbCr")
    # Whole numbers below 2 ** 53: exact in any order of summation.
    channels_CYX = np.moveaxis(np.asarray(small).astype(np.float64) - 128.0, -1, 0)
    basis = _basis()
    coefficients_CVU = basis @ channels_CYX @ basis.T
    kept = np.concatenate(
        [coefficients_CVU[0].ravel(), *(coefficients_CVU[channel, :CHROMA, :CHROMA].ravel() for channel in (1, 2))]
    )
    return np.round(kept * _scales()).astype("<i2").tobytes()


@cache
def _basis() -> Floats:
    return dct_basis(SIDE, LUMA).astype(np.float64)


@cache
def _scales() -> Floats:
    """From products of the integer basis to steps."""
    norm = np.sqrt(np.where(np.arange(LUMA) == 0, SIDE, SIDE / 2)) * 1024
    by_frequency = STEPS / SIDE / (norm[:, None] * norm)
    chroma = by_frequency[:CHROMA, :CHROMA].ravel()
    return np.concatenate([by_frequency.ravel(), chroma, chroma])
