"""Videos: the frames at evenly spaced times of a time range, decoded once, and the sound of the same range of time.

Rules: of the streams the first with pictures and the first with sound count; a video ends with the later of both, its
last frame being shown until then; frames are stored upright; colours are
converted to RGB as the stream declares them, and where it does not, as BT.709 from 720 rows on and as BT.601 below
(wide colours and brightness beyond the standard range are not mapped); pixels are taken to be square; interlaced frames
stay so. One thread, no hardware, and a conversion whose arithmetic is the same on every CPU.
"""

import hashlib
from collections import deque
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from PIL import Image

from mm_assets.modalities.audio.decode import DecodedAudio
from mm_assets.modalities.image.decode import DecodedImage
from mm_assets.modalities.image.signals import WORKING_SIDE
from mm_assets.modalities.reasons import BlobRejectedError, Refusal
from mm_assets.modalities.video import header
from mm_assets.modalities.video.container import MICROSECONDS, open_container, said
from mm_assets.modalities.video.timeline import (
    Shown,
    Timeline,
    TimeRange,
    bounds,
    choose_frames,
    read_timeline,
    spans,
    to_us,
)
from mm_assets.modalities.video.track import decode_track
from mm_assets.modalities.video.upright import upright

EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT
UNSPECIFIED_COLOURS, HD_ROWS = 2, 720


class Limits(header.Limits, Protocol):
    """What decoding a video reads of the configuration."""

    @property
    def video_frames(self) -> int:
        """Frames per time range, at most."""
        ...

    @property
    def max_decoded_bytes(self) -> int:
        """Size of the decoded sound (float32, all channels)."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedVideo:
    """A decoded time range.

    ``frames`` are RGB and upright, no larger than ``WORKING_SIDE``; ``times_us`` says when each is shown, and
    ``audio`` begins, both relative to the start of the time range. ``audio_start_us`` is where its first sample lies;
    silence is before it. Both are None where the sound was not decoded. ``num_frames`` counts the frames that are shown
    within the time range; ``digest`` is over the chosen frames at their full size.
    """

    frames: tuple[DecodedImage, ...]
    times_us: tuple[int, ...]
    width: int
    height: int
    fps: float | None
    seconds: float
    num_frames: int
    digest: str
    has_sound: bool
    audio: DecodedAudio | None
    audio_start_us: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedVideo:
    """A blob with what all of its ranges of time need: its header and when its packets are shown."""

    data: bytes
    header: header.VideoHeader
    timeline: Timeline


def prepare(data: bytes, config: Limits) -> PreparedVideo:
    """Judges the header of a blob and reads its packets, without decoding one.

    Raises:
        BlobRejectedError: what ``header`` refuses, ``too_many_frames``, ``no_content`` or ``undecodable``.
    """
    found = header.read_header(data, config)
    if isinstance(found, Refusal):
        raise BlobRejectedError(found)
    with _explained(), open_container(data, found.format, max_pixels=config.max_video_pixels) as container:
        timeline = read_timeline(container, max_frames=config.max_video_frames)
    return PreparedVideo(data=data, header=found, timeline=timeline)


def decode(data: bytes, config: Limits, time_range: TimeRange | None = None) -> DecodedVideo:
    """``decode_range`` of a blob that is looked at once."""
    return decode_range(prepare(data, config), config, time_range)


def decode_range(
    video: PreparedVideo, config: Limits, time_range: TimeRange | None = None, *, tracks: Collection[str] = ("audio",)
) -> DecodedVideo:
    """Decodes what is looked at of a blob.

    Args:
        video: The blob.
        config: Ceilings, and how many frames.
        time_range: Of the blob; all of it if None.
        tracks: What of the modalities that it may hold is decoded too.

    Raises:
        BlobRejectedError: ``bad_time_range``, ``too_many_seconds``, ``header_lies``, ``too_many_decoded_bytes``,
            ``not_finite``, ``unsupported_format`` or ``undecodable``.
    """
    with _explained():
        return _decode(video, config, time_range, with_sound="audio" in tracks)


@contextmanager
def _explained() -> Generator[None]:
    """What FFmpeg cannot decode is a refused blob."""
    try:
        yield
    except BlobRejectedError:
        raise
    except (FFmpegError, ValueError) as error:
        raise BlobRejectedError(Refusal("undecodable", said(error))) from error


def _decode(video: PreparedVideo, config: Limits, time_range: TimeRange | None, *, with_sound: bool) -> DecodedVideo:
    data, kind, timeline = video.data, video.header.format, video.timeline
    start, end = bounds(timeline, time_range)
    if end - start > config.max_video_seconds * MICROSECONDS:
        detail = f"video has {(end - start) / MICROSECONDS:.1f} s; {config.max_video_seconds:g} s are allowed"
        raise BlobRejectedError(Refusal("too_many_seconds", detail))
    frames: list[DecodedImage] = []
    times: list[int] = []
    size = (0, 0)
    hasher = hashlib.sha256(f"{end - start} ".encode())
    with open_container(data, kind, max_pixels=config.max_video_pixels) as container:
        for shown_at, frame in _chosen(container, timeline, choose_frames(timeline, start, end, config.video_frames)):
            picture = _picture(frame)
            size = size if frames else picture.size
            # A frame that is shown when the time range begins may have begun before it.
            times.append(max(0, shown_at - start))
            hasher.update(f"{times[-1]} {picture.width} {picture.height} ".encode())
            hasher.update(picture.tobytes())
            frames.append(_reduced(picture))
    audio, audio_start = decode_track(data, kind, start, end, config) if with_sound else (None, None)
    return DecodedVideo(
        frames=tuple(frames),
        times_us=tuple(times),
        width=size[0],
        height=size[1],
        fps=video.header.fps,
        seconds=(end - start) / MICROSECONDS,
        num_frames=max(len(frames), sum(start <= packet.time_us < end for packet in timeline.packets)),
        digest="sha256:" + hasher.hexdigest(),
        has_sound=audio is not None if with_sound else timeline.has_sound(start, end),
        audio=audio,
        audio_start_us=audio_start,
    )


def _chosen(container: InputContainer, timeline: Timeline, chosen: Sequence[Shown]) -> Iterator[tuple[int, VideoFrame]]:
    """The chosen frames by time, each with the time at which it is shown.

    A packet may turn out to hold no frame that is shown; the frame before it counts then.
    """
    for first, last, frames in _decoded(container, spans(timeline, chosen)):
        due = deque(frame for frame in chosen if first <= frame.number <= last)
        latest: tuple[int, VideoFrame] | None = None
        for shown_at, frame in frames:
            while due and latest is not None and due[0].time_us < shown_at:
                due.popleft()
                yield latest
            latest = shown_at, frame
        if latest is None and due:
            detail = f"no frame decodes at {due[0].time_us / MICROSECONDS:g} s"
            raise BlobRejectedError(Refusal("undecodable", detail))
        if due and latest is not None:
            yield latest


def _decoded(
    container: InputContainer, wanted: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int, Iterator[tuple[int, VideoFrame]]]]:
    """Per span its first and last packet, and its frames with their times; spans have to be used up in order."""
    stream = container.streams.video[0]
    packets = enumerate(container.demux(stream))
    origin = container.start_time or 0

    def frames(first: int, last: int) -> Iterator[tuple[int, VideoFrame]]:
        for number, packet in packets:
            if number >= first and packet.size:
                yield from ((_time(frame, stream, origin), frame) for frame in packet.decode())
            if number == last:
                break
        yield from ((_time(frame, stream, origin), frame) for frame in stream.codec_context.decode(None))
        stream.codec_context.flush_buffers()

    for first, last in wanted:
        yield first, last, frames(first, last)


def _time(frame: VideoFrame, stream: VideoStream, origin_us: int) -> int:
    stamp = frame.dts if frame.pts is None else frame.pts
    if frame.is_corrupt or stamp is None:
        raise BlobRejectedError(Refusal("undecodable", "a frame is damaged, or does not say when it is shown"))
    return to_us(stamp, stream.time_base) - origin_us


def _picture(frame: VideoFrame) -> Image.Image:
    """The frame, upright, RGB."""
    colours = None
    if frame.colorspace == UNSPECIFIED_COLOURS:
        colours = Colorspace.ITU709 if frame.height >= HD_ROWS else Colorspace.ITU601
    rgb = VideoReformatter().reformat(frame, format="rgb24", src_colorspace=colours, interpolation=EXACT, threads=1)
    picture = Image.fromarray(rgb.to_ndarray())
    turn = upright(frame)
    return picture if turn is None else picture.transpose(turn)


def _reduced(picture: Image.Image) -> DecodedImage:
    """No larger than what signals and tensors are made from."""
    scale = WORKING_SIDE / max(picture.size)
    if scale >= 1:
        return DecodedImage(rgb=picture)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return DecodedImage(rgb=picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
