"""What signals look at of a picture: luma of bands of rows, so that a large picture costs little more than a small one.

A band is ``BAND_ROWS`` neighbouring rows: enough to see how luma changes along both axes.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

#: Bands and the rows of each; a picture of no more rows than they have together is one band.
NUM_BANDS, BAND_ROWS = 32, 3

#: Of bands [N, rows, columns].
Luma = npt.NDArray[np.uint8]


def luma_bands(picture: Image.Image) -> Luma:
    """Luma of evenly spaced bands of an RGB picture of at most 4 million pixels, from the first row to the last."""
    width, height = picture.size
    if height <= NUM_BANDS * BAND_ROWS:
        return _values(picture.convert("L"))[None]
    # Pillow hands out pixels of four bytes without a copy, as long as they are one block of memory.
    pixels = np.asarray(pa.array(picture).values).reshape(height, width, 4)
    starts = np.arange(NUM_BANDS) * (height - BAND_ROWS) // (NUM_BANDS - 1)
    chosen = pixels[(starts[:, None] + np.arange(BAND_ROWS)).ravel()]
    rows = Image.frombuffer("RGBX", (width, len(chosen)), chosen, "raw", "RGBX", 0, 1)
    return _values(rows.convert("L")).reshape(NUM_BANDS, BAND_ROWS, width)


def histogram(luma: Luma) -> npt.NDArray[np.int64]:
    """How many pixels have each of the 256 levels."""
    flat = Image.frombuffer("L", (luma.shape[2], luma.shape[0] * luma.shape[1]), luma, "raw", "L", 0, 1)
    return np.asarray(flat.histogram(), dtype=np.int64)


def _values(grey: Image.Image) -> Luma:
    return np.frombuffer(grey.tobytes(), np.uint8).reshape(grey.height, grey.width)
