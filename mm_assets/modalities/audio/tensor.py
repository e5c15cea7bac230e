"""A clip as the value of its column in ``tensors.arrow``: log-mel frames of its beginning.

Resampling is soxr's 20-bit setting, whose single-precision engine is the same code on every x86-64 CPU; its
double-precision one is not.
"""

from typing import Protocol

import numpy as np
import soxr

from mm_assets.modalities.audio.decode import DecodedAudio, Samples
from mm_assets.modalities.audio.mel import MelConfig, log_mel


class Shape(MelConfig, Protocol):
    """What making the frames reads of the configuration."""

    @property
    def max_audio_seconds(self) -> float:
        """Length at which a clip is cut."""
        ...


def make_tensor(audio: DecodedAudio, config: Shape) -> tuple[bytes, int]:
    """Frames x mels float32, little-endian, and the number of frames."""
    mel_FM = log_mel(resampled_start(audio, config), config)
    return mel_FM.tobytes(), len(mel_FM)


def metadata(config: Shape) -> dict[str, int]:
    """What a reader of the column needs."""
    return {"num_mels": config.num_mels, "sample_rate": config.sample_rate, "hop_ms": config.hop_ms}


def resampled_start(audio: DecodedAudio, config: Shape) -> Samples:
    """The first ``max_audio_seconds`` of the clip at ``sample_rate``; at least one sample.

    Half a second more is resampled than kept, so that the end of a cut clip has real samples in its filter.
    """
    wanted = round(config.max_audio_seconds * config.sample_rate)
    source = audio.mono[: int((config.max_audio_seconds + 0.5) * audio.sample_rate) + 1]
    if audio.sample_rate != config.sample_rate:
        source = soxr.resample(source, audio.sample_rate, config.sample_rate, quality="HQ")
    kept = np.ascontiguousarray(source[:wanted], dtype=np.float32)
    return kept if len(kept) else np.zeros(1, np.float32)
