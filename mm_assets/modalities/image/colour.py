"""Colours of a picture: from its embedded ICC profile to sRGB, which every later stage takes pixels to be.

A profile for another kind of colours than the picture's, or one that cannot be read, leaves the pixels as they are, as
viewers do. Pixels without a profile are taken for sRGB; PNG's gAMA and cHRM chunks are ignored.
"""

import logging
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import cast

from PIL import Image, ImageCms

logger = logging.getLogger(__name__)

#: Colour space, four letters of a profile's header -> mode of the pixels that the profile is about.
MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
COLOUR_SPACE = slice(16, 20)
GREY_MODES = ("1", "L", "LA", "La")

#: A strip of a picture, in any mode, to its colours in mode RGB.
Convert = Callable[[Image.Image], Image.Image]


def to_srgb(image: Image.Image) -> Convert | None:
    """What converts strips of the picture to sRGB; None without a usable profile.

    Rendering intent is perceptual. Transparency is left to the caller.

    Source: ICC.1:2022; the arithmetic is lcms2's on 8-bit values.
    """
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not profile:
        return None
    mode = MODES.get(profile[COLOUR_SPACE].decode("latin-1"))
    if mode is None or mode != _mode_of_colours(image.mode):
        logger.debug("ICC profile ignored: it is not about pixels of mode %s", image.mode)
        return None
    try:
        transform = ImageCms.buildTransform(ImageCms.ImageCmsProfile(BytesIO(profile)), _srgb(), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        logger.debug("ICC profile ignored: %s", type(error).__name__)
        return None
    return lambda strip: cast("Image.Image", ImageCms.applyTransform(strip.convert(mode), transform))


def _mode_of_colours(mode: str) -> str:
    """The mode of a picture's colours without transparency, palette or a second byte."""
    if mode == "CMYK":
        return mode
    return "L" if mode in GREY_MODES or mode.startswith("I") else "RGB"


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
