"""What a picture's header declares, read by Pillow's lazy ``open``: no pixel is decoded."""

import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import Protocol

from PIL import Image, UnidentifiedImageError

from mm_assets.modalities.reasons import Refusal

#: Pillow's names of the formats it may try, and ours.
FORMATS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}


class Limits(Protocol):
    """What judging a header reads of a configuration."""

    @property
    def max_image_pixels(self) -> int:
        """Width times height."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageHeader:
    """Declared format and size in pixels."""

    format: str
    width: int
    height: int


def inspect_header(data: bytes, limits: Limits) -> str | Refusal:
    """``png``, ``jpg`` or ``webp``, or why the bytes are refused."""
    found = read_header(data, max_pixels=limits.max_image_pixels)
    return found if isinstance(found, Refusal) else found.format


def read_header(data: bytes, *, max_pixels: int) -> ImageHeader | Refusal:
    """The header of a picture of at most ``max_pixels``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of bombs and odd metadata; our own ceiling decides.
            with Image.open(BytesIO(data), formats=tuple(FORMATS)) as image:
                kind, width, height = FORMATS[str(image.format)], image.width, image.height
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return Refusal("too_many_pixels", f"image declares more than {limit} pixels; {max_pixels} are allowed")
    except UnidentifiedImageError:
        return _unidentified(data)
    except Exception as error:  # Pillow's header readers raise a dozen built-in classes on damaged input.
        return Refusal("bad_header", f"image header cannot be read: {type(error).__name__}")
    if not width or not height:
        return Refusal("no_content", f"{kind} header declares no pixels")
    if width * height > max_pixels:
        detail = f"{kind} declares {width} x {height} = {width * height} pixels; {max_pixels} are allowed"
        return Refusal("too_many_pixels", detail)
    return ImageHeader(format=kind, width=width, height=height)


def _unidentified(data: bytes) -> Refusal:
    is_known = data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")) or data[8:12] == b"WEBP"
    if is_known:
        return Refusal("bad_header", "image header cannot be read")
    return Refusal("unsupported_format", "image is neither PNG, JPEG nor WebP")
