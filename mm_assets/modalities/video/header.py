"""What a video's container declares: its boxes are compared with the file first, then FFmpeg reads its header."""

from dataclasses import dataclass
from typing import Protocol

from av.error import FFmpegError

from mm_assets.modalities.reasons import Refusal
from mm_assets.modalities.video.boxes import QUICKTIME_BRAND, check_avi, check_mp4
from mm_assets.modalities.video.container import MICROSECONDS, has_decoder, open_container, said
from mm_assets.modalities.video.elements import check_matroska, doc_type

MAX_STREAMS = 32
#: Samples of one track in the tables of an MP4, per frame that is allowed: sound has more of them than pictures.
TABLE_FACTOR = 20


class Limits(Protocol):
    """What judging a header reads of a configuration."""

    @property
    def max_video_pixels(self) -> int:
        """Width times height of a frame."""
        ...

    @property
    def max_video_seconds(self) -> float:
        """Declared duration."""
        ...

    @property
    def max_video_frames(self) -> int:
        """Declared number of frames."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoHeader:
    """Declared format and size. ``seconds`` is 0 where the container leaves its duration out."""

    format: str
    width: int
    height: int
    seconds: float
    num_frames: int
    fps: float | None


def inspect_header(data: bytes, limits: Limits) -> str | Refusal:
    """``mp4``, ``mov``, ``webm``, ``mkv`` or ``avi``, or why the bytes are refused."""
    found = read_header(data, limits)
    return found if isinstance(found, Refusal) else found.format


def read_header(data: bytes, limits: Limits) -> VideoHeader | Refusal:
    """The header of a video within the limits."""
    kind = _format(data)
    if kind is None:
        return Refusal("unsupported_format", "video is neither MP4, QuickTime, WebM, Matroska nor AVI")
    refusal = _check_structure(data, kind, limits)
    if refusal is not None:
        return refusal
    try:
        with open_container(data, kind, max_pixels=limits.max_video_pixels) as container:
            if len(container.streams) > MAX_STREAMS:
                return Refusal(
                    "too_many_streams", f"{kind} has {len(container.streams)} streams; {MAX_STREAMS} are allowed"
                )
            if not container.streams.video:
                return Refusal("no_content", f"{kind} has no video stream")
            stream = container.streams.video[0]
            if not has_decoder(stream):
                return Refusal("unsupported_format", f"{kind} has pictures of an unknown codec")
            header = VideoHeader(
                format=kind,
                width=stream.codec_context.width,
                height=stream.codec_context.height,
                seconds=(container.duration or 0) / MICROSECONDS,
                num_frames=stream.frames,
                fps=float(stream.average_rate) if stream.average_rate else None,
            )
    except (FFmpegError, ValueError) as error:
        return Refusal("bad_header", f"{kind} header cannot be read: {said(error)}")
    return _check(header, limits) or header


def _check_structure(data: bytes, kind: str, limits: Limits) -> Refusal | None:
    if kind == "avi":
        return check_avi(data)
    if kind in ("webm", "mkv"):
        return check_matroska(data, max_frames=limits.max_video_frames)
    frames = limits.max_video_frames
    return check_mp4(data, max_frames=frames, max_samples=TABLE_FACTOR * frames)


def _check(header: VideoHeader, limits: Limits) -> Refusal | None:
    kind, pixels = header.format, header.width * header.height
    if pixels <= 0:
        return Refusal("no_content", f"{kind} header declares no pixels")
    if pixels > limits.max_video_pixels:
        size = f"{header.width} x {header.height} pixels; {limits.max_video_pixels} are allowed"
        return Refusal("too_many_pixels", f"{kind} declares {size}")
    if header.seconds > limits.max_video_seconds:
        length = f"{header.seconds:.1f} s; {limits.max_video_seconds:g} s are allowed"
        return Refusal("too_many_seconds", f"{kind} declares {length}")
    if header.num_frames > limits.max_video_frames:
        return Refusal(
            "too_many_frames", f"{kind} declares {header.num_frames} frames; {limits.max_video_frames} are allowed"
        )
    return None


def _format(data: bytes) -> str | None:
    if data[4:8] == b"ftyp":
        return "mov" if data[8:12] == QUICKTIME_BRAND else "mp4"
    if data[4:8] in (b"moov", b"mdat", b"wide"):
        return "mov"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "avi"
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return {"webm": "webm", "matroska": "mkv"}.get(doc_type(data) or "")
    return None
