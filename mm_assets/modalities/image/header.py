"""What a picture's header declares, read by Pillow's lazy readers: no pixel is decoded."""

import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Protocol

from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from mm_assets.modalities.reasons import Refusal

ADDRESS = re.compile(r"<[^>]* at 0x[0-9a-fA-F]+>")
MAX_SAID_CHARS = 120
#: Called directly, they read headers only; ``Image.open`` would judge the size before us.
READERS = {"png": PngImageFile, "jpg": JpegImageFile, "webp": WebPImageFile}


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
    kind = _format(data)
    if kind is None:
        return Refusal("unsupported_format", "image is neither PNG, JPEG nor WebP")
    try:
        with _without_warnings(), READERS[kind](BytesIO(data)) as image:
            width, height = image.size
            has_colours = not isinstance(image, PngImageFile) or image.mode != "P" or image.palette is not None
    except Exception as error:  # Pillow's header readers raise a dozen built-in classes on damaged input.
        return Refusal("bad_header", f"{kind} header cannot be read: {_said(error)}")
    if not has_colours:
        return Refusal("bad_header", "png has numbers of colours and no palette")
    if not width or not height:
        return Refusal("no_content", f"{kind} header declares no pixels")
    if width * height > max_pixels:
        return Refusal("too_many_pixels", f"{kind} declares {width} x {height} pixels; {max_pixels} are allowed")
    return ImageHeader(format=kind, width=width, height=height)


@contextmanager
def _without_warnings() -> Generator[None]:
    """Pillow warns of damaged EXIF data, which decide nothing here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _said(error: Exception) -> str:
    """Pillow's sentence without the address of a stream, which differs from run to run."""
    return ADDRESS.sub("the data", str(error))[:MAX_SAID_CHARS] or type(error).__name__


def _format(data: bytes) -> str | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None
