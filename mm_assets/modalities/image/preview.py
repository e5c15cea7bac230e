"""A picture as a tile of a preview."""

import io
import warnings

from PIL import Image

from mm_assets.modalities.image.header import read_header
from mm_assets.modalities.reasons import Refusal

#: A preview decodes only what is cheap to decode.
MAX_PIXELS = 4_000_000


def tile(data: bytes, side: int) -> Image.Image | None:
    """The picture in a white square of ``side`` pixels; None if it does not decode or is large."""
    if isinstance(read_header(data, max_pixels=MAX_PIXELS), Refusal):
        return None
    square = Image.new("RGB", (side, side), "white")
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as picture:
            warnings.simplefilter("ignore")
            shown = picture.convert("RGBA")
    except (OSError, ValueError, SyntaxError):
        return None
    shown.thumbnail((side, side))
    square.paste(shown, ((side - shown.width) // 2, (side - shown.height) // 2), shown)
    return square
