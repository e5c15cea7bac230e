"""Mel bands as another front end would have made them: power density is read at the centres of its bands.

A front end differs from ours in its mel scale, the height of its triangles, its window and whether it emphasises high
frequencies first. All of these but the time resolution of the window are known factors of a band's power.

Legend of shapes: F frames, M mel bands of ours, N mel bands of the other.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mm_assets.features.pretrained_types import WINDOW_MS
from mm_assets.modalities.audio.mel import mel_matrix

#: log10 of power below which nothing is told apart.
FLOOR = -10.0

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontEnd:
    """What makes a spectrogram.

    Attributes:
        filters: Frequency bins, from 0 to half the sample rate, x mels.
        sample_rate: Hz.
        window_power: Sum of the squares of the window.
        emphasis: Share of the sample before that is subtracted from each sample.
    """

    filters: Floats
    sample_rate: int
    window_power: float
    emphasis: float = 0.0

    @property
    def areas(self) -> Floats:
        """Of the triangles, in bins."""
        return self.filters.sum(0)

    @property
    def centres(self) -> Floats:
        """Of the triangles, in Hz; 0 where one holds no bin."""
        hz = np.linspace(0.0, self.sample_rate / 2, len(self.filters))
        return (self.filters * hz[:, None]).sum(0) / np.where(self.areas > 0, self.areas, 1.0)

    @property
    def gains(self) -> Floats:
        """log10 of what a band's power is per density of power, for bands that hold bins."""
        angles = 2.0 * np.pi * self.centres / self.sample_rate
        emphasis = 1.0 + self.emphasis**2 - 2.0 * self.emphasis * np.cos(angles)
        return np.log10(np.where(self.areas > 0, self.areas, 1.0)) + np.log10(self.window_power) + np.log10(emphasis)


def our_front_end(sample_rate: int, num_mels: int) -> FrontEnd:
    """What ``mel.log_mel`` does at windows of ``WINDOW_MS``."""
    window = sample_rate * WINDOW_MS // 1000
    fft_size = 1 << (window - 1).bit_length()
    power = float((np.hanning(window + 1)[:-1] ** 2).sum())
    return FrontEnd(filters=mel_matrix(sample_rate, fft_size, num_mels), sample_rate=sample_rate, window_power=power)


def converted(log_FM: npt.NDArray[np.float32], ours: FrontEnd, other: FrontEnd) -> npt.NDArray[np.float32]:
    """log10 of band power as ``other`` would have given it; a band that holds no bin is at ``FLOOR``."""
    known, wanted = ours.areas > 0, other.areas > 0
    density_FM = log_FM.astype(np.float64)[:, known] - ours.gains[known]
    found_FN = np.full((len(log_FM), other.filters.shape[1]), FLOOR)
    for frame, density_M in zip(found_FN, density_FM, strict=True):
        frame[wanted] = np.interp(other.centres[wanted], ours.centres[known], density_M) + other.gains[wanted]
    return np.maximum(found_FN, FLOOR).astype(np.float32)
