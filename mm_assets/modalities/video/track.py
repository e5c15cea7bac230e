"""The sound of a time range of a video, on the clock of its frames: its first sample is at the time range's start.

Where the track begins later, or has a gap, there is silence; what lies before the start is cut off. The clock is as
exact as the container's times: Matroska and WebM round them to a millisecond.
"""

import hashlib
from typing import Protocol

import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame

from mm_assets.modalities.audio.decode import DecodedAudio, Samples, digest_head, mix
from mm_assets.modalities.audio.header import MAX_CHANNELS, MAX_RATE, MIN_RATE
from mm_assets.modalities.reasons import BlobRejectedError, Refusal
from mm_assets.modalities.video.container import MICROSECONDS, has_decoder, open_container
from mm_assets.modalities.video.timeline import time_us, to_us

#: What is decoded before the time range, because decoders of sound need some packets to settle.
PREROLL_US = 1_000_000
#: Containers round the times of packets, to a millisecond or so: a smaller difference is no gap.
JITTER_US = 20_000
#: Full scale of whole numbers, by the name of their format.
FULL_SCALE = {"u8": 128.0, "s16": 32768.0, "s32": 2147483648.0, "s64": 9223372036854775808.0}


class Limits(Protocol):
    """What decoding a track reads of the configuration."""

    @property
    def max_video_pixels(self) -> int:
        """Width times height of a frame."""
        ...

    @property
    def max_decoded_bytes(self) -> int:
        """Size of the decoded sound (float32, all channels)."""
        ...


def decode_track(
    data: bytes, kind: str, start_us: int, end_us: int, config: Limits
) -> tuple[DecodedAudio | None, int | None]:
    """The sound between two times, and where in it the track's first sample lies; None if there is none.

    Raises:
        BlobRejectedError: ``header_lies``, ``too_many_decoded_bytes`` or ``not_finite``.
        av.FFmpegError: it does not decode.
    """
    with open_container(data, kind, max_pixels=config.max_video_pixels) as container:
        if not container.streams.audio:
            return None, None
        stream = container.streams.audio[0]
        if not has_decoder(stream):
            raise BlobRejectedError(Refusal("unsupported_format", "audio track is of an unknown codec"))
        origin = container.start_time or 0
        placed: _Placed | None = None
        for packet in container.demux(stream):
            at = time_us(packet, origin)
            if at is not None and at > end_us:
                break
            if at is None or at < start_us - PREROLL_US or not packet.size:
                continue
            for frame in packet.decode():
                placed = placed or _Placed(frame, end_us - start_us, config)
                placed.add(frame, to_us(frame.pts or 0, stream.time_base) - origin - start_us)
        for frame in stream.codec_context.decode(None) if placed else ():
            assert placed is not None
            placed.add(frame, None)
    return placed.finish() if placed is not None else (None, None)


class _Placed:
    """Samples on the clock of the time range."""

    def __init__(self, first: AudioFrame, length_us: int, config: Limits) -> None:
        self.rate, self.channels = first.sample_rate, first.layout.nb_channels
        if not MIN_RATE <= self.rate <= MAX_RATE or not 1 <= self.channels <= MAX_CHANNELS:
            detail = f"audio track declares {self.rate} Hz and {self.channels} channels"
            raise BlobRejectedError(Refusal("header_lies", detail))
        num_samples = max(1, -(-length_us * self.rate // MICROSECONDS))
        num_bytes = 4 * num_samples * self.channels
        if num_bytes > config.max_decoded_bytes:
            detail = f"audio track has {num_bytes} decoded bytes; {config.max_decoded_bytes} are allowed"
            raise BlobRejectedError(Refusal("too_many_decoded_bytes", detail))
        self.samples = np.zeros((num_samples, self.channels), np.float32)
        self.first: int | None = None
        self.end: int | None = None

    def add(self, frame: AudioFrame, at_us: int | None) -> None:
        """Puts a frame where it is heard; without a time of its own, behind the one before."""
        if (frame.sample_rate, frame.layout.nb_channels) != (self.rate, self.channels):
            raise BlobRejectedError(Refusal("header_lies", "audio track changes its rate or channels"))
        values = _floats(frame)
        place = self.end or 0
        if at_us is not None:
            told = round(at_us * self.rate / MICROSECONDS)
            if self.end is None or abs(told - self.end) * MICROSECONDS > JITTER_US * self.rate:
                place = told
        self.end = place + len(values)
        begin, stop = max(0, place), min(self.end, len(self.samples))
        if begin < stop:
            self.samples[begin:stop] = values[begin - place : stop - place]
            self.first = begin if self.first is None else min(self.first, begin)

    def finish(self) -> tuple[DecodedAudio | None, int | None]:
        """The clip, if a sample of the track lies in the time range."""
        if self.first is None:
            return None, None
        if not np.isfinite(self.samples).all():
            raise BlobRejectedError(Refusal("not_finite", "a sample of the audio track is NaN or infinite"))
        hasher = hashlib.sha256(digest_head(self.rate, self.channels))
        hasher.update(self.samples.astype("<f4", copy=False).tobytes())
        audio = DecodedAudio(
            mono=mix(self.samples),
            sample_rate=self.rate,
            channels=self.channels,
            digest="sha256:" + hasher.hexdigest(),
        )
        return audio, round(self.first * MICROSECONDS / self.rate)


def _floats(frame: AudioFrame) -> Samples:
    """Samples x channels, full scale 1."""
    values: npt.NDArray[np.generic] = frame.to_ndarray()
    name = frame.format.name
    by_sample = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    scale = FULL_SCALE.get(name.rstrip("p"))
    if scale is None:
        return by_sample.astype(np.float32)
    centre = 128.0 if name.startswith("u8") else 0.0
    return ((by_sample.astype(np.float64) - centre) / scale).astype(np.float32)
