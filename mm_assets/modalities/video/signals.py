"""Quality signals of a decoded clip: of its frames, its movement, its length, and when its frames and its sound begin.

Sums run over integers; means are of few numbers, added exactly.
"""

import math

import numpy as np
import pyarrow as pa
from PIL import Image

from mm_assets.modalities.image.bands import luma_bands
from mm_assets.modalities.image.decode import DecodedImage
from mm_assets.modalities.image.signals import Ints, sharpness
from mm_assets.modalities.video.decode import DecodedVideo
from mm_assets.modalities.video.signature import signature

COLUMNS = (
    ("video_seconds", pa.float64()),
    ("video_width", pa.int32()),
    ("video_height", pa.int32()),
    ("video_fps", pa.float64()),
    ("video_num_frames", pa.int32()),
    ("video_frame_times_us", pa.list_(pa.int64())),
    ("video_sharpness", pa.float64()),
    ("video_brightness", pa.float64()),
    ("video_motion", pa.float64()),
    ("video_has_sound", pa.bool_()),
    ("video_sound_start_us", pa.int64()),
    ("video_decode_digest", pa.string()),
    ("video_signature", pa.binary()),
)
NUMBERS = ("video_seconds", "video_fps", "video_sharpness", "video_brightness", "video_motion")
FLAGS: tuple[str, ...] = ()
COMBINED = {
    "video_seconds": "sum", "video_width": "min", "video_height": "min", "video_fps": "min", "video_sharpness": "min",
}  # fmt: skip

MOTION_SIDE = 64
DECIMALS = 6


def measure(video: DecodedVideo, config: object) -> dict[str, object]:
    """The columns for one clip."""
    del config
    lumas = [luma_bands(frame.rgb) for frame in video.frames]
    return {
        "video_seconds": round(video.seconds, DECIMALS),
        "video_width": video.width,
        "video_height": video.height,
        "video_fps": None if video.fps is None else round(video.fps, DECIMALS),
        "video_num_frames": video.num_frames,
        "video_frame_times_us": list(video.times_us),
        "video_sharpness": _mean([sharpness(luma) for luma in lumas]),
        "video_brightness": _mean([int(luma.sum(dtype=np.int64)) / (255.0 * luma.size) for luma in lumas]),
        "video_motion": motion(video.frames),
        "video_has_sound": video.has_sound,
        "video_sound_start_us": video.audio_start_us,
        "video_decode_digest": video.digest,
        "video_signature": signature(video),
    }


def motion(frames: tuple[DecodedImage, ...]) -> float | None:
    """Mean absolute change of luma from one looked-at frame to the next, in [0, 1]; None for a single frame."""
    small = [_small_luma(frame) for frame in frames]
    pairs = zip(small[:-1], small[1:], strict=True)
    changes = [int(np.abs(later - earlier).sum()) / (255.0 * later.size) for earlier, later in pairs]
    return _mean(changes) if changes else None


def _small_luma(frame: DecodedImage) -> Ints:
    side = (MOTION_SIDE, MOTION_SIDE)
    return np.asarray(frame.rgb.resize(side, Image.Resampling.BILINEAR).convert("L")).astype(np.int64)


def _mean(values: list[float]) -> float:
    return round(math.fsum(values) / len(values), DECIMALS)
