"""Quality signals and keys of a decoded picture.

All sums run over integers, so they are exact and independent of the order in which a CPU adds.
"""

import hashlib
import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from mm_assets.modalities.image.dct import dct_basis
from mm_assets.modalities.image.decode import STRIP_ROWS, DecodedImage
from mm_assets.modalities.image.signature import signature

COLUMNS = (
    ("image_width", pa.int32()),
    ("image_height", pa.int32()),
    ("image_aspect", pa.float64()),
    ("image_entropy", pa.float64()),
    ("sharpness", pa.float64()),
    ("brightness", pa.float64()),
    ("contrast", pa.float64()),
    ("image_phash", pa.string()),
    ("image_pixels_digest", pa.string()),
    ("image_signature", pa.binary()),
)
NUMBERS = ("sharpness", "brightness", "contrast", "image_aspect", "image_entropy")
FLAGS: tuple[str, ...] = ()
#: Of several pictures: the worst of what a policy asks a least value of, else the mean.
COMBINED = {"image_width": "min", "image_height": "min", "image_entropy": "min", "sharpness": "min", "contrast": "min"}

#: Signals are about the picture scaled down to this longer side, so that they compare across resolutions.
WORKING_SIDE = 512
DECIMALS = 6
HASH_SIDE, HASH_BITS_SIDE = 32, 8
DEAD_BAND = 50

Ints = npt.NDArray[np.int64]


def measure(image: DecodedImage, config: object) -> dict[str, object]:
    """The columns for one picture."""
    del config
    grey = image.rgb.convert("L")
    luma = _working_luma(image, grey)
    levels = np.asarray(luma.histogram(), dtype=np.int64)
    mean, variance = _mean_and_variance(levels)
    return {
        "image_width": image.width,
        "image_height": image.height,
        "image_aspect": aspect_ratio(image.width, image.height),
        "image_entropy": entropy(levels),
        "sharpness": sharpness(np.asarray(luma)),
        "brightness": mean / 255.0,
        "contrast": float(np.sqrt(variance)) / 255.0,
        "image_phash": perceptual_hash(grey),
        "image_pixels_digest": pixels_digest(image),
        "image_signature": signature(image),
    }


def aspect_ratio(width: int, height: int) -> float:
    """Width by height: above 1 for a wide picture, below 1 for a tall one."""
    return round(width / height, DECIMALS)


def entropy(levels: Ints) -> float:
    """Entropy of a histogram of luma, in bits per pixel: 0 for one level, 8 for 256 equally frequent ones.

    Source: Shannon 1948, over the 256 levels of 8-bit luma.
    """
    shares = levels[levels > 0] / levels.sum()
    # Added one by one, exactly: numpy's own order of summation depends on the CPU.
    return round(abs(math.fsum(-share * math.log2(share) for share in shares.tolist())), DECIMALS)


def sharpness(luma: npt.NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of luma in [0, 255]; 0 for pictures below 3 x 3.

    Source: Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy".
    """
    if min(luma.shape) < 3:
        return 0.0
    wide = luma.astype(np.int16)
    laplacian = wide[:-2, 1:-1] + wide[2:, 1:-1]
    laplacian += wide[1:-1, :-2]
    laplacian += wide[1:-1, 2:]
    laplacian -= 4 * wide[1:-1, 1:-1]
    # Whole numbers whose squares sum to less than 2 ** 53: exact in any order of summation.
    values = laplacian.ravel().astype(np.float64)
    return _variance(values.size, int(values.sum()), int(np.einsum("n,n->", values, values)))


def perceptual_hash(grey: Image.Image) -> str:
    """16 hex digits: which of the 8 x 8 lowest DCT coefficients of 32 x 32 luma are clearly positive.

    "Clearly" is more than 1 / ``DEAD_BAND`` of the largest one. The usual median as threshold makes half the bits of a
    symmetric picture a matter of noise: on 502 emoji, JPEG at quality 75 moved up to 46 bits with it and 3 without.

    Source: Zauner 2010, "Implementation and benchmarking of perceptual image hash functions".
    """
    small = np.asarray(grey.resize((HASH_SIDE, HASH_SIDE), Image.Resampling.BILINEAR))
    basis = dct_basis(HASH_SIDE, HASH_BITS_SIDE)
    coefficients = np.einsum("ux,xy,vy->uv", basis, small.astype(np.int64), basis).ravel()
    coefficients[0] = 0  # The mean: brightness does not enter the hash.
    bits = DEAD_BAND * coefficients > np.abs(coefficients).max()
    return np.packbits(bits).tobytes().hex()


def pixels_digest(image: DecodedImage) -> str:
    """Digest of size and RGB values: equal for a PNG and a lossless WebP of the same picture."""
    hasher = hashlib.sha256(f"{image.width} {image.height} ".encode())
    for top in range(0, image.height, STRIP_ROWS):
        hasher.update(image.rgb.crop((0, top, image.width, min(top + STRIP_ROWS, image.height))).tobytes())
    return "sha256:" + hasher.hexdigest()


def _working_luma(image: DecodedImage, grey: Image.Image) -> Image.Image:
    longer = max(image.width, image.height)
    if longer <= WORKING_SIDE:
        return grey
    scale = WORKING_SIDE / longer
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.rgb.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0).convert("L")


def _mean_and_variance(levels: Ints) -> tuple[float, float]:
    """Of the values that a histogram counts."""
    values = np.arange(len(levels))
    count, total, squares = int(levels.sum()), int((levels * values).sum()), int((levels * values * values).sum())
    return total / count, _variance(count, total, squares)


def _variance(count: int, total: int, squares: int) -> float:
    return (squares * count - total * total) / (count * count)
