"""Pictures: one decode, after the header was judged.

Rules: pixels are stored upright (the EXIF orientation is applied); an ICC profile is converted to sRGB (``colour``);
CMYK without a profile is converted by Pillow's formula; transparency, also of a palette, is laid over white after that;
of 16 bits per channel the upper 8 are kept; of an animation the first frame counts. The format is recognised by
content, not by name.
"""

import logging
import re
import warnings
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from mm_assets.modalities.image.colour import Convert, to_srgb
from mm_assets.modalities.image.header import Limits, read_header
from mm_assets.modalities.image.jpeg import MORE, load_judged
from mm_assets.modalities.image.png import misses_rows
from mm_assets.modalities.image.scale import GAP, Size, blocks, fitted
from mm_assets.modalities.reasons import BlobRejectedError, Refusal

logger = logging.getLogger(__name__)

WHITE = (255, 255, 255)
STRIP_ROWS = 256
#: The longer side of the picture that ``small`` is a step to, and the least that ``small`` leaves of either side.
SMALL_SIDE = 64
TRANSPARENT_MODES = ("RGBA", "RGBa", "LA", "La", "PA")
#: Pillow puts the address of a stream into some messages; no output may hold one.
ADDRESS = re.compile(r"<[^>]* at 0x[0-9a-fA-F]+>")


@dataclass(frozen=True, kw_only=True)
class DecodedImage:
    """A decoded picture: RGB, 8 bits, upright."""

    rgb: Image.Image

    @cached_property
    def factors(self) -> Size:
        """Width and height of the blocks of pixels whose mean is a pixel of ``small``."""
        wide, high = blocks(self.rgb.size, fitted(self.rgb.size, SMALL_SIDE))
        return max(1, min(wide, self.width // SMALL_SIDE)), max(1, min(high, self.height // SMALL_SIDE))

    @cached_property
    def small(self) -> Image.Image:
        """The picture about twice as large as ``SMALL_SIDE``, made once for all that needs no more."""
        return self.rgb if self.factors == (1, 1) else self.rgb.reduce(self.factors)

    def scaled(self, size: Size) -> Image.Image:
        """``small`` in another size, by Pillow's bilinear filter over the source area."""
        box = (0.0, 0.0, self.width / self.factors[0], self.height / self.factors[1])
        return self.small.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=GAP)

    @property
    def width(self) -> int:
        """Pixels per row."""
        return self.rgb.width

    @property
    def height(self) -> int:
        """Rows."""
        return self.rgb.height


def decode(data: bytes, config: Limits) -> DecodedImage:
    """Decodes a blob once; its header is judged before any pixel is decoded.

    Raises:
        BlobRejectedError: what ``header`` refuses, ``header_lies``, ``truncated`` or ``undecodable``.
    """
    header = read_header(data, max_pixels=config.max_image_pixels)
    if isinstance(header, Refusal):
        raise BlobRejectedError(header)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The ceiling above decides, not Pillow's.
            image = Image.open(BytesIO(data))
            lie = _load(image, data)
            if lie is None:
                _turn_upright(image)
                return DecodedImage(rgb=_to_rgb(image))
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen built-in classes on damaged input.
        detail = _message(error)
        raise BlobRejectedError(Refusal(_reason(detail), detail)) from error
    detail = f"{header.format} {lie}: {header.width} x {header.height} declared"
    raise BlobRejectedError(Refusal("header_lies", detail))


def _load(image: Image.Image, data: bytes) -> str | None:
    """Decodes; how the header lies about the number of pixels, or None."""
    if isinstance(image, JpegImageFile):
        return load_judged(image, data)
    image.load()
    if isinstance(image, PngImageFile) and misses_rows(image, data):
        return MORE
    return None


def _turn_upright(image: Image.Image) -> None:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # Damaged EXIF metadata: the pixels are fine, and they stay as they are.
        logger.debug("EXIF orientation ignored: %s", type(error).__name__)


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB, converted strip by strip: a second full-size copy in a wider mode would double the peak of memory."""
    convert = to_srgb(image)
    if image.mode == "RGB" and "transparency" not in image.info and convert is None:
        return image
    canvas = Image.new("RGB", image.size, WHITE)
    for top in range(0, image.height, STRIP_ROWS):
        strip = image.crop((0, top, image.width, min(top + STRIP_ROWS, image.height)))
        canvas.paste(_strip_to_rgb(strip, convert), (0, top))
    return canvas


def _strip_to_rgb(strip: Image.Image, convert: Convert | None) -> Image.Image:
    if strip.mode.startswith("I"):
        strip = _eight_bits(strip)
    if strip.mode not in TRANSPARENT_MODES and "transparency" not in strip.info:
        return strip.convert("RGB") if convert is None else convert(strip)
    rgba = strip.convert("RGBA")
    if convert is not None:
        rgba = Image.merge("RGBA", (*convert(rgba).split(), rgba.getchannel("A")))
    canvas = Image.new("RGBA", rgba.size, (*WHITE, 255))
    canvas.alpha_composite(rgba)
    return canvas.convert("RGB")


def _eight_bits(strip: Image.Image) -> Image.Image:
    """Pillow clips 16-bit grey at 255 when it converts; the upper byte is what a viewer shows."""
    values: npt.NDArray[np.integer[Any]] = np.asarray(strip)
    return Image.fromarray(np.clip(values >> 8, 0, 255).astype(np.uint8))


def _message(error: Exception) -> str:
    return ADDRESS.sub("stream", f"{type(error).__name__}: {error}")[:200]


def _reason(detail: str) -> str:
    return "truncated" if "truncated" in detail.lower() else "undecodable"
