"""How the frames of a video are turned and mirrored before they are shown: the display matrix of its container.

Source: ISO/IEC 14496-12, 8.3.2 (the matrix of a track), and FFmpeg's ``libavutil/display.h``.
"""

import struct

from av.video.frame import VideoFrame
from PIL.Image import Transpose

from mm_assets.modalities.reasons import BlobRejectedError, Refusal

#: By the direction in which the columns and the rows of a frame run where it is shown.
TURNS = {
    (1, 0, 0, 1): None,
    (-1, 0, 0, 1): Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Transpose.FLIP_TOP_BOTTOM,
    (-1, 0, 0, -1): Transpose.ROTATE_180,
    (0, 1, -1, 0): Transpose.ROTATE_270,
    (0, -1, 1, 0): Transpose.ROTATE_90,
    (0, 1, 1, 0): Transpose.TRANSPOSE,
    (0, -1, -1, 0): Transpose.TRANSVERSE,
}
#: Of the longer of two numbers what the other may be: writers round.
ROUNDING = 0.01


def upright(frame: VideoFrame) -> Transpose | None:
    """What is done to the frame; None for nothing, also where the matrix is all zeros, as some programs write it.

    Raises:
        BlobRejectedError: ``unsupported_format``: it is turned by another angle than quarters.
    """
    found = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return None
    across, down, _, back, up, *_ = struct.unpack("<9i", bytes(found))
    matrix = across, down, back, up
    if not any(matrix):
        return None
    key = (*_direction(across, down), *_direction(back, up))
    if key not in TURNS:
        numbers = ", ".join(f"{number / 65536:g}" for number in matrix)
        detail = f"video is shown turned by the matrix {numbers}, which is no quarter turn and no mirror"
        raise BlobRejectedError(Refusal("unsupported_format", detail))
    return TURNS[key]


def _direction(right: int, down: int) -> tuple[int, int]:
    """The axis that a vector runs along, or (0, 0) where it is none."""
    if abs(down) <= ROUNDING * abs(right):
        return (right > 0) - (right < 0), 0
    if abs(right) <= ROUNDING * abs(down):
        return 0, (down > 0) - (down < 0)
    return 0, 0
