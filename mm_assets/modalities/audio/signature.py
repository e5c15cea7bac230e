"""The signature of a clip: how its energy is spread over time and frequency, from its first sound to its last.

It stays nearly the same when a clip is encoded again, at another rate or level, or gets silence before or after. It has
no unit of time: bands are in Hz and below what telephone speech keeps, and the time axis is divided into equal parts.
"""

from functools import cache

import numpy as np
import numpy.typing as npt
import soxr

from mm_assets.modalities.audio.decode import DecodedAudio, Samples
from mm_assets.modalities.audio.signature_format import BANDS, PARTS, STEPS_PER_DB

LOWEST_HZ, HIGHEST_HZ = 150.0, 3400.0
#: Clips of a higher rate are resampled to this one, in Hz, whose half is above all bands.
RATE = 8000
WINDOW_S, HOP_S = 0.032, 0.016
#: A length with large prime factors takes a Fourier transform several times as long.
WINDOW_MULTIPLE = 16
#: Frames are transformed in blocks that the cache of a core holds: of 10 s at 44.1 kHz it takes half the time.
BLOCK_FRAMES = 64
#: Share of the energy that is cut off at either end. A threshold in decibels would move by whole words with the noise
#: that an encoder leaves.
TRIM = 0.001
#: Levels this far below the loudest are cut: encoders fill silence differently.
RANGE_DB = 40.0
#: Root mean square, over the parts of a clip, of what bands differ from their own means: below it a clip is silence or
#: a steady sound, which a spectrum of 12 bands does not tell from other ones.
MIN_CHANGE_DB = 1.0
FLOOR = 1e-12

Floats = npt.NDArray[np.float64]


def signature(audio: DecodedAudio) -> bytes | None:
    """``PARTS`` x ``BANDS`` int8: level of each band in each part of the clip, half decibels around their mean.

    None for silence and steady sounds, which are near to nothing.
    """
    energy_FB = band_energies(*_reduced(audio))
    energy_PB = _parts(energy_FB)
    level_PB = 10.0 * np.log10(energy_PB + FLOOR)
    level_PB = np.maximum(level_PB, level_PB.max() - RANGE_DB)
    steps = np.round((level_PB - level_PB.mean()) * STEPS_PER_DB)
    if np.square(steps - steps.mean(axis=0)).mean() < (MIN_CHANGE_DB * STEPS_PER_DB) ** 2:
        return None
    return np.clip(steps, -127, 127).astype(np.int8).tobytes()


def _reduced(audio: DecodedAudio) -> tuple[Samples, int]:
    """Samples at a rate of ``RATE`` at most, and the rate: higher ones have nothing that the bands hear."""
    if audio.sample_rate <= RATE:
        return audio.mono, audio.sample_rate
    # As in `tensor`, soxr's single-precision engine.
    return np.asarray(soxr.resample(audio.mono, audio.sample_rate, RATE, quality="HQ"), np.float32), RATE


def band_energies(mono: Samples, sample_rate: int) -> Floats:
    """Frames x bands: power between neighbouring edges, of windows of ``WINDOW_S`` every ``HOP_S``."""
    taper, edges = _window(sample_rate)
    window = len(taper)
    starts = _starts(len(mono), window, sample_rate)
    samples = np.pad(mono, (0, max(0, window - len(mono))))
    energy_FB = np.empty((len(starts), BANDS))
    # Bands above half the rate begin at the column of zeros behind the last frequency.
    power = np.zeros((min(BLOCK_FRAMES, len(starts)), window // 2 + 2))
    for first in range(0, len(starts), BLOCK_FRAMES):
        block = starts[first : first + BLOCK_FRAMES]
        spectrum = np.fft.rfft(samples[block[:, None] + np.arange(window)] * taper, axis=1)
        own = power[: len(block)]
        own[:, :-1] = spectrum.real**2 + spectrum.imag**2
        energy_FB[first : first + len(block)] = np.add.reduceat(own, edges, axis=1)[:, :BANDS]
    return energy_FB / ((taper**2).sum() * window)


@cache
def _window(sample_rate: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The taper of a window, and where each band begins and the last one ends among its frequencies."""
    window = max(WINDOW_MULTIPLE, round(WINDOW_S * sample_rate / WINDOW_MULTIPLE) * WINDOW_MULTIPLE)
    frequency = np.arange(window // 2 + 1) * (sample_rate / window)
    return np.hanning(window + 1)[:-1], np.searchsorted(frequency, np.geomspace(LOWEST_HZ, HIGHEST_HZ, BANDS + 1))


def _starts(num_samples: int, window: int, rate: int) -> npt.NDArray[np.int64]:
    count = 1 + max(0, int((num_samples - window) / (HOP_S * rate)))
    return np.minimum(np.round(np.arange(count) * (HOP_S * rate)), max(0, num_samples - window)).astype(np.int64)


def _parts(energy_FB: Floats) -> Floats:
    """Mean energy of each of ``PARTS`` equal parts of what is not cut off; frames count in parts by their share."""
    total_F = np.concatenate([[0.0], np.cumsum(energy_FB.sum(axis=1))])
    if total_F[-1] <= 0.0:
        return np.zeros((PARTS, BANDS))
    first, last = np.interp([TRIM * total_F[-1], (1.0 - TRIM) * total_F[-1]], total_F, np.arange(len(total_F)))
    total_FB = np.concatenate([np.zeros((1, BANDS)), np.cumsum(energy_FB, axis=0)])
    place = np.linspace(first, last, PARTS + 1)
    below = np.minimum(place.astype(np.int64), len(energy_FB) - 1)
    reached = total_FB[below] + (place - below)[:, None] * energy_FB[below]
    return np.maximum(np.diff(reached, axis=0), 0.0) * (PARTS / max(last - first, 1.0))
