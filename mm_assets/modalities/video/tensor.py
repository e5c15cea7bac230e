"""A clip as the value of its column in ``tensors.arrow``: some frames as small squares, each with its time."""

from typing import Protocol

import numpy as np

from mm_assets.modalities.image.tensor import square
from mm_assets.modalities.video.decode import DecodedVideo


class Shape(Protocol):
    """What making the frames reads of the configuration."""

    @property
    def video_size(self) -> int:
        """Height and width of a frame, pixels."""
        ...

    @property
    def video_frames(self) -> int:
        """Frames of a clip, at most."""
        ...


def make_tensor(video: DecodedVideo, config: Shape) -> tuple[bytes, int]:
    """The rows of ``frames``, and their number."""
    rows = [
        np.array(time_us, "<i8").tobytes() + square(frame, config.video_size)
        for time_us, frame in zip(video.times_us, video.frames, strict=True)
    ]
    return b"".join(rows), len(rows)


def metadata(config: Shape) -> dict[str, int]:
    """What a reader of the column needs."""
    return {"video_size": config.video_size, "video_frames": config.video_frames}
