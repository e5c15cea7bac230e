"""Damage to log-mel frames [frames, mels], of known strength: severities from 1 (hardly noticeable) to 5.

- ``audio_noise``: noise of equal mean energy in every mel band, at a signal-to-noise ratio; phases play no part.
- ``audio_clipping``: the loudest mel energies are cut to a ceiling; the harmonics real clipping adds are missing.
- ``audio_low_pass``: the upper mel bands fall to the clip's floor, as after recording at a low sample rate.
- ``audio_gaps``: stretches of 100 ms fall to the clip's floor, as packets lost on a line.
"""

import math

import numpy as np
from numpy.typing import NDArray

from mm_assets.modalities.audio.mel import STEPS

Frames = NDArray[np.float32]

SIGNAL_TO_NOISE_DB = (20.0, 15.0, 10.0, 5.0, 0.0)
CEILING_QUANTILE = (0.98, 0.95, 0.9, 0.8, 0.65)
KEPT_BANDS = (0.85, 0.7, 0.55, 0.4, 0.25)
GAP_SHARE = (0.05, 0.1, 0.2, 0.35, 0.5)
GAP_FRAMES = 10


def _noise(audio: Frames, severity: int, rng: np.random.Generator) -> Frames:
    energy = 10.0 ** (4.0 * audio.astype(np.float64) - 4.0)
    noise = energy.mean() / 10 ** (SIGNAL_TO_NOISE_DB[severity - 1] / 10)
    # The energy of Gaussian noise in one frequency bin is exponentially distributed.
    noisy = (np.log10(energy + noise * rng.exponential(size=audio.shape)) + 4.0) / 4.0
    return (np.round(noisy * STEPS) / STEPS).astype(np.float32)


def _clipping(audio: Frames, severity: int, _rng: np.random.Generator) -> Frames:
    return np.minimum(audio, np.quantile(audio, CEILING_QUANTILE[severity - 1]).astype(np.float32))


def _low_pass(audio: Frames, severity: int, _rng: np.random.Generator) -> Frames:
    damaged = audio.copy()
    damaged[:, max(1, round(audio.shape[1] * KEPT_BANDS[severity - 1])) :] = audio.min()
    return damaged


def _gaps(audio: Frames, severity: int, rng: np.random.Generator) -> Frames:
    damaged = audio.copy()
    pieces = -(-len(audio) // GAP_FRAMES)
    lost = rng.permutation(pieces)[: math.ceil(pieces * GAP_SHARE[severity - 1])]
    for piece in lost:
        damaged[piece * GAP_FRAMES : (piece + 1) * GAP_FRAMES] = audio.min()
    return damaged


CORRUPTIONS = {
    "audio_noise": _noise,
    "audio_clipping": _clipping,
    "audio_low_pass": _low_pass,
    "audio_gaps": _gaps,
}
