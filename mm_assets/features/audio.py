"""Clips: header checks, one decode in blocks, the mono mix and the resampled start of it.

WAV, FLAC, Ogg and MP3, recognised by content. Channels are averaged. Resampling is soxr's 20-bit setting, whose
single-precision engine is the same code on every x86-64 CPU; its double-precision one is not.
"""

import hashlib
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from mm_assets.features.blobs import BlobRejectedError
from mm_assets.features.config import FeaturesConfig
from mm_assets.features.wav import check_wav_header

CONTAINERS = frozenset({"WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3", "MPEG"})
MIN_RATE, MAX_RATE = 1_000, 768_000
MAX_CHANNELS = 64
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


def decode_audio(data: bytes, config: FeaturesConfig) -> DecodedAudio:
    """Decodes a blob once, in blocks; its header is checked before any sample is.

    Raises:
        BlobRejectedError: ``audio_header_lies``, ``audio_too_long``, ``audio_truncated``, ``audio_empty``,
            ``audio_not_finite`` or ``audio_undecodable``.
    """
    check_wav_header(data)
    try:
        with soundfile.SoundFile(BytesIO(data)) as file:
            _check_header(file, config)
            return _read(file)
    except soundfile.LibsndfileError as error:
        # Its text names a Python stream by address; the decoder's own sentence does not.
        raise BlobRejectedError("audio_undecodable", error.error_string) from error


def resampled_start(audio: DecodedAudio, config: FeaturesConfig) -> Samples:
    """The first ``max_audio_seconds`` of the clip at ``sample_rate``; at least one sample.

    Half a second more is resampled than kept, so that the end of a cut clip has real samples in its filter.
    """
    wanted = round(config.max_audio_seconds * config.sample_rate)
    source = audio.mono[: int((config.max_audio_seconds + 0.5) * audio.sample_rate) + 1]
    if audio.sample_rate != config.sample_rate:
        source = soxr.resample(source, audio.sample_rate, config.sample_rate, quality="HQ")
    kept = np.ascontiguousarray(source[:wanted], dtype=np.float32)
    return kept if len(kept) else np.zeros(1, np.float32)


def _check_header(file: soundfile.SoundFile, config: FeaturesConfig) -> None:
    rate, channels, frames = file.samplerate, file.channels, file.frames
    if file.format not in CONTAINERS:
        raise BlobRejectedError("audio_undecodable", f"container {file.format} is none of WAV, FLAC, Ogg and MP3")
    if not MIN_RATE <= rate <= MAX_RATE or not 1 <= channels <= MAX_CHANNELS:
        raise BlobRejectedError(
            "audio_undecodable",
            f"expected {MIN_RATE} to {MAX_RATE} Hz and at most {MAX_CHANNELS} channels, got {rate} Hz, {channels}",
        )
    if frames > config.max_decoded_seconds * rate:
        raise BlobRejectedError(
            "audio_too_long", f"expected at most {config.max_decoded_seconds:g} s, header declares {frames / rate:g} s"
        )
    if frames * channels * 4 > config.max_decoded_bytes:
        raise BlobRejectedError(
            "audio_too_long",
            f"expected at most {config.max_decoded_bytes} decoded bytes, header declares {frames * channels * 4}",
        )
    if frames == 0:
        raise BlobRejectedError("audio_empty", "header declares no samples")


def _read(file: soundfile.SoundFile) -> DecodedAudio:
    hasher = hashlib.sha256(f"{file.samplerate} {file.channels} ".encode())
    mono = np.empty(file.frames, np.float32)
    filled = 0
    while filled < file.frames:
        block: Samples = np.asarray(
            file.read(min(BLOCK_FRAMES, file.frames - filled), dtype="float32", always_2d=True), dtype=np.float32
        )
        if not len(block):
            raise BlobRejectedError("audio_truncated", f"header declares {file.frames} samples, {filled} decode")
        if not np.isfinite(block).all():
            raise BlobRejectedError("audio_not_finite", f"a sample after position {filled} is NaN or infinite")
        hasher.update(block.astype("<f4", copy=False).tobytes())
        mono[filled : filled + len(block)] = _mix(block)
        filled += len(block)
    return DecodedAudio(
        mono=mono, sample_rate=file.samplerate, channels=file.channels, digest="sha256:" + hasher.hexdigest()
    )


def _mix(block: Samples) -> Samples:
    """Mean over channels, added one by one: numpy's own order of summation depends on the shape."""
    if block.shape[1] == 1:
        return block[:, 0]
    total = block[:, 0].astype(np.float64)
    for channel in range(1, block.shape[1]):
        total += block[:, channel]
    return (total / block.shape[1]).astype(np.float32)
