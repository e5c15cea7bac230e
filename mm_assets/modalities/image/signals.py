"""Quality signals and keys of a decoded picture.

Sums run over integers, so they are exact and independent of the order in which a CPU adds; the entropy is rounded above
the digits that show it.
"""

import hashlib
import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from mm_assets.modalities.image.bands import Luma, histogram, luma_bands
from mm_assets.modalities.image.decode import DecodedImage
from mm_assets.modalities.image.scale import GAP, fitted
from mm_assets.modalities.image.signature import signature

COLUMNS = (
    ("image_width", pa.int32()),
    ("image_height", pa.int32()),
    ("image_aspect", pa.float64()),
    ("image_entropy", pa.float64()),
    ("sharpness", pa.float64()),
    ("brightness", pa.float64()),
    ("contrast", pa.float64()),
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
LEVELS = np.arange(256)
SQUARES = LEVELS * LEVELS

Ints = npt.NDArray[np.int64]


def measure(image: DecodedImage, config: object) -> dict[str, object]:
    """The columns for one picture."""
    del config
    luma = luma_bands(_working(image))
    levels = histogram(luma)
    mean, variance = _mean_and_variance(levels)
    return {
        "image_width": image.width,
        "image_height": image.height,
        "image_aspect": aspect_ratio(image.width, image.height),
        "image_entropy": entropy(levels),
        "sharpness": sharpness(luma),
        "brightness": mean / 255.0,
        "contrast": math.sqrt(variance) / 255.0,
        "image_pixels_digest": pixels_digest(image, luma),
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
    return round(abs(float((shares * np.log2(shares)).sum())), DECIMALS)


def sharpness(luma: Luma) -> float:
    """Variance of the Laplacian of luma in [0, 255] within bands; 0 for pictures below 3 x 3.

    Source: Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy".
    """
    _, height, width = luma.shape
    if min(height, width) < 3:
        return 0.0
    # Each as one line: neighbours are then at fixed distances. What is computed across the end of a row is cleared.
    above, middle, below = (luma[:, first : height - 2 + first].astype(np.int16).ravel() for first in range(3))
    above += below
    laplacian = above[1:-1]
    laplacian += middle[:-2]
    laplacian += middle[2:]
    middle *= 4
    laplacian -= middle[1:-1]
    rows = above.reshape(-1, width).astype(np.float64)
    rows[:, 0] = rows[:, -1] = 0.0
    # Whole numbers whose squares sum to less than 2 ** 53: exact in any order of summation.
    return _variance(len(rows) * (width - 2), int(rows.sum()), int(np.vecdot(rows, rows).sum()))


def pixels_digest(image: DecodedImage, luma: Luma) -> str:
    """Digest of size, luma of bands, and colours of the small picture, in which every pixel counts.

    Equal for a PNG and a lossless WebP of one picture. One of all RGB values would cost as much as all other signals
    (docs/decisions/0028-cost-of-signals.md).
    """
    hasher = hashlib.sha256(f"{image.width} {image.height} ".encode())
    hasher.update(luma.data)
    hasher.update(image.small.tobytes())
    return "sha256:" + hasher.hexdigest()


def _working(image: DecodedImage) -> Image.Image:
    if max(image.rgb.size) <= WORKING_SIDE:
        return image.rgb
    return image.rgb.resize(fitted(image.rgb.size, WORKING_SIDE), Image.Resampling.BILINEAR, reducing_gap=GAP)


def _mean_and_variance(levels: Ints) -> tuple[float, float]:
    """Of the values that a histogram counts."""
    count, total, squares = int(levels.sum()), int(LEVELS @ levels), int(SQUARES @ levels)
    return total / count, _variance(count, total, squares)


def _variance(count: int, total: int, squares: int) -> float:
    return (squares * count - total * total) / (count * count)
