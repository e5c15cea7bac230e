"""Log-mel spectrograms whose bytes do not depend on threads, batches or the CPU.

Everything is computed in float64 and then rounded to multiples of 1/1024, so that the last bits in which two CPUs'
``log`` and ``fft`` differ (relative 1e-15) do not reach an output. The mel matrix is applied by ``einsum`` without
``optimize``, which never calls a threaded BLAS.
"""

from functools import cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

#: Log-mel values are multiples of 1 / STEPS: 0.01 dB, far below what 25 ms of audio resolve.
STEPS = 1024
FLOOR = 1e-10
DYNAMIC_RANGE = 8.0

Floats = npt.NDArray[np.float64]


class MelConfig(Protocol):
    """What a spectrogram reads of the configuration."""

    @property
    def sample_rate(self) -> int:
        """Rate of the samples, Hz."""
        ...

    @property
    def num_mels(self) -> int:
        """Bands per frame."""
        ...

    @property
    def window_ms(self) -> int:
        """Length of a window."""
        ...

    @property
    def hop_ms(self) -> int:
        """Distance between two windows."""
        ...


def log_mel(samples: npt.NDArray[np.float32], config: MelConfig) -> npt.NDArray[np.float32]:
    """Frames x mels of a mono clip at ``config.sample_rate``.

    Frame i covers the window that starts at i hops, zero-padded at the end: one frame per hop begun. Values are
    log10 of band power, cut 8 below the clip's maximum, then (x + 4) / 4.

    Source: the front end of Whisper (Radford et al. 2022, arXiv:2212.04356), with HTK mel bands.
    """
    window = config.sample_rate * config.window_ms // 1000
    hop = config.sample_rate * config.hop_ms // 1000
    num_frames = max(1, -(-len(samples) // hop))
    padded = np.zeros((num_frames - 1) * hop + window, np.float64)
    padded[: min(len(samples), len(padded))] = samples[: len(padded)]
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    fft_size = _fft_size(window)
    spectrum = np.fft.rfft(frames * np.hanning(window + 1)[:-1], n=fft_size, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    bands = np.einsum("tf,fm->tm", power, mel_matrix(config.sample_rate, fft_size, config.num_mels))
    logs = np.log10(np.maximum(bands, FLOOR))
    scaled = (np.maximum(logs, logs.max() - DYNAMIC_RANGE) + 4.0) / 4.0
    return (np.round(scaled * STEPS) / STEPS).astype("<f4")


def mel_frequencies(sample_rate: int, num_mels: int) -> Floats:
    """The ``num_mels + 2`` edges of the bands in Hz; band m peaks at edge m + 1.

    Source: O'Shaughnessy 1987, as in HTK: mel = 2595 log10(1 + f / 700).
    """
    top = 2595.0 * np.log10(1.0 + sample_rate / 2 / 700.0)
    return 700.0 * (10.0 ** (np.linspace(0.0, top, num_mels + 2) / 2595.0) - 1.0)


@cache
def mel_matrix(sample_rate: int, fft_size: int, num_mels: int) -> Floats:
    """Bins x mels: triangles of height 1 between neighbouring edges."""
    edges = mel_frequencies(sample_rate, num_mels)
    bins = np.arange(fft_size // 2 + 1)[:, None] * (sample_rate / fft_size)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling))


def _fft_size(window: int) -> int:
    return 1 << (window - 1).bit_length()
