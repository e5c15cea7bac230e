"""Videos for tests, written by FFmpeg: a bar that moves over a background that brightens, with a tone."""

import io
from fractions import Fraction
from typing import Any

import av
import numpy as np

PIXEL_FORMATS = {"mjpeg": "yuvj420p"}


class _Pipe(io.BytesIO):
    """Bytes that are written one after the other."""

    def seekable(self) -> bool:
        return False


def video(
    container: str = "mp4",
    codec: str = "libx264",
    *,
    sound: str | None = None,
    seconds: float = 2.0,
    fps: int = 25,
    size: tuple[int, int] = (64, 48),
    gop: int = 10,
    hue: int = 0,
    sound_from_s: float = 0.0,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    streamed: bool = False,
    sound_seconds: float | None = None,
) -> bytes:
    """The bytes of a file; ``hue`` is the colour channel of the background.

    The sound ends with the pictures unless ``sound_seconds`` says when; ``streamed`` is written without going back.
    """
    buffer = _Pipe() if streamed else io.BytesIO()
    with av.open(buffer, "w", format=container, container_options=container_options or {}) as output:
        stream: Any = output.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = PIXEL_FORMATS.get(codec, "yuv420p")
        stream.codec_context.thread_count, stream.codec_context.gop_size = 1, gop
        track: Any = output.add_stream(sound, rate=48_000, layout="mono") if sound else None
        for number in range(round(seconds * fps)):
            frame = av.VideoFrame.from_ndarray(picture(number, round(seconds * fps), size, hue), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if track is not None:
            _add_sound(output, track, tone((sound_seconds or seconds) - sound_from_s), round(sound_from_s * 48_000))
    return buffer.getvalue()


def picture(number: int, count: int, size: tuple[int, int], hue: int = 0) -> np.ndarray:
    """Frame ``number`` of ``count``."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, :, hue] = 40 + 200 * number // count
    left = number * size[0] // count
    pixels[:, left : left + size[0] // 10, (hue + 1) % 3] = 255
    return pixels


def tone(seconds: float) -> np.ndarray:
    """440 Hz at 48 kHz; its loudness grows from nothing."""
    time = np.arange(round(48_000 * seconds)) / 48_000
    return (np.sin(2 * np.pi * 440 * time) * 0.4 * time / max(seconds, 1e-9)).astype(np.float32)


def _add_sound(output: Any, track: Any, samples: np.ndarray, start: int) -> None:
    for first in range(0, len(samples), 960):
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples[None, first : first + 960]), format="fltp", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = 48_000, start + first, Fraction(1, 48_000)
        output.mux(track.encode(frame))
    output.mux(track.encode(None))
