"""A clip as a tile of a preview: the frame in its middle."""

from dataclasses import dataclass

from PIL import Image

from mm_assets.modalities.reasons import BlobRejectedError
from mm_assets.modalities.video.decode import decode


@dataclass(frozen=True, slots=True)
class _Cheap:
    """A preview decodes one frame, and only of what is cheap to decode."""

    max_video_pixels: int = 4_000_000
    max_video_seconds: float = 600.0
    max_video_frames: int = 50_000
    max_decoded_bytes: int = 64 << 20
    video_frames: int = 1


def tile(data: bytes, side: int) -> Image.Image | None:
    """The frame in a white square of ``side`` pixels; None if it does not decode or is large."""
    try:
        shown = decode(data, _Cheap()).frames[0].rgb
    except BlobRejectedError:
        return None
    square = Image.new("RGB", (side, side), "white")
    shown = shown.copy()
    shown.thumbnail((side, side))
    square.paste(shown, ((side - shown.width) // 2, (side - shown.height) // 2))
    return square
