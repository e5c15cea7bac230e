"""Clips: one decode in blocks, after the header was judged, and the mono mix. Channels are averaged."""

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import soundfile

from mm_assets.modalities.audio.flac import open_whole
from mm_assets.modalities.audio.header import read_header
from mm_assets.modalities.reasons import BlobRejectedError, Refusal

BLOCK_FRAMES = 1 << 16

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedAudio:
    """A decoded clip: the mono mix at its own rate, and the digest of all its channels as float32."""

    mono: Samples
    sample_rate: int
    channels: int
    digest: str

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.mono) / self.sample_rate


class Limits(Protocol):
    """What decoding a clip reads of the configuration."""

    @property
    def max_decoded_seconds(self) -> float:
        """Duration of one decoded clip."""
        ...

    @property
    def max_decoded_bytes(self) -> int:
        """Size of one decoded clip (float32, all channels)."""
        ...


def decode(data: bytes, config: Limits) -> DecodedAudio:
    """Decodes a blob once, in blocks; its header is judged before any sample is decoded.

    Raises:
        BlobRejectedError: what ``header`` refuses, ``too_many_decoded_bytes``, ``truncated``, ``header_lies``,
            ``not_finite`` or ``undecodable``.
    """
    header = read_header(data, max_seconds=config.max_decoded_seconds)
    if isinstance(header, Refusal):
        raise BlobRejectedError(header)
    if header.decoded_bytes > config.max_decoded_bytes:
        detail = f"audio declares {header.decoded_bytes} decoded bytes; {config.max_decoded_bytes} are allowed"
        raise BlobRejectedError(Refusal("too_many_decoded_bytes", detail))
    try:
        with open_whole(data) as file:
            return _read(file, header.num_frames)
    except soundfile.LibsndfileError as error:
        # Its text names a Python stream by address; the decoder's own sentence does not.
        raise BlobRejectedError(Refusal("undecodable", error.error_string)) from error


def _read(file: soundfile.SoundFile, num_frames: int) -> DecodedAudio:
    hasher = hashlib.sha256(digest_head(file.samplerate, file.channels))
    mono = np.empty(num_frames, np.float32)
    filled = 0
    while filled < num_frames:
        block: Samples = np.asarray(
            file.read(min(BLOCK_FRAMES, num_frames - filled), dtype="float32", always_2d=True), dtype=np.float32
        )
        if not len(block):
            detail = f"header declares {num_frames} samples, {filled} decode"
            raise BlobRejectedError(Refusal("truncated", detail))
        if not np.isfinite(block).all():
            raise BlobRejectedError(Refusal("not_finite", f"a sample after position {filled} is NaN or infinite"))
        hasher.update(block.astype("<f4", copy=False).tobytes())
        mono[filled : filled + len(block)] = mix(block)
        filled += len(block)
    if _goes_on(file):
        raise BlobRejectedError(Refusal("header_lies", f"header declares {num_frames} samples, and more data follow"))
    return DecodedAudio(
        mono=mono, sample_rate=file.samplerate, channels=file.channels, digest="sha256:" + hasher.hexdigest()
    )


def _goes_on(file: soundfile.SoundFile) -> bool:
    """Whether anything follows the declared samples: others, or bytes that are none."""
    try:
        return len(file.read(1, dtype="float32", always_2d=True)) > 0
    except soundfile.LibsndfileError:
        return True


def digest_head(sample_rate: int, channels: int) -> bytes:
    """What the digest of a decoded clip begins with; all channels follow, interleaved as little-endian float32."""
    return f"{sample_rate} {channels} ".encode()


def mix(block: Samples) -> Samples:
    """Mean over channels, added one by one: numpy's own order of summation depends on the shape."""
    if block.shape[1] == 1:
        return block[:, 0]
    total = block[:, 0].astype(np.float64)
    for channel in range(1, block.shape[1]):
        total += block[:, channel]
    return (total / block.shape[1]).astype(np.float32)
