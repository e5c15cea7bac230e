"""Opens a video in memory with FFmpeg: one named demuxer, one thread, software decoders, nothing outside the bytes."""

from io import BytesIO
from typing import Any

import av
from av.container import InputContainer

DEMUXERS = {"mp4": "mov", "mov": "mov", "webm": "matroska", "mkv": "matroska", "avi": "avi"}
MICROSECONDS = 1_000_000


#: Of FFmpeg those that turn bytes into frames and samples.
LIBRARIES = ("libavcodec", "libavformat", "libavutil", "libswscale")


def ffmpeg_versions() -> dict[str, str]:
    """Name and version of the libraries in use."""
    return {name: ".".join(map(str, av.library_versions[name])) for name in LIBRARIES}


def open_container(data: bytes, kind: str, *, max_pixels: int) -> InputContainer:
    """The container in ``data``, to be closed by the caller.

    FFmpeg may decode the first frames of a stream to learn its parameters: ``max_pixels`` bounds these too, and every
    later one, which may be of another size.

    Raises:
        av.FFmpegError: it cannot be opened.
    """
    options = {"max_pixels": str(max_pixels), "threads": "1"}
    own = {"enable_drefs": "0", "use_absolute_path": "0"} if DEMUXERS[kind] == "mov" else {}
    container = av.open(
        BytesIO(data), "r", format=DEMUXERS[kind], options=options, container_options=own, metadata_errors="ignore"
    )
    for stream in (*container.streams.video, *container.streams.audio):
        if has_decoder(stream):
            stream.codec_context.thread_count = 1
            # Damage is an error: a decoder would fill it with what was shown before.
            stream.codec_context.options = {"err_detect": "explode", "max_pixels": str(max_pixels)}
    return container


def has_decoder(stream: Any) -> bool:
    """Whether the stream is of a codec that FFmpeg knows."""
    return stream.codec_context is not None


def said(error: Exception) -> str:
    """FFmpeg's sentence about an error, without the name of a stream in memory."""
    return str(getattr(error, "strerror", None) or type(error).__name__)[:200]
