"""Quality signals of a decoded clip, over the whole clip at its own rate.

Values are rounded to six decimals: below that, the order in which a CPU adds floats would show.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mm_assets.modalities.audio.decode import DecodedAudio
from mm_assets.modalities.audio.signature import signature

COLUMNS = (
    ("audio_seconds", pa.float64()),
    ("sample_rate", pa.float64()),
    ("clipping_fraction", pa.float64()),
    ("snr_db", pa.float64()),
    ("silence_fraction", pa.float64()),
    ("loudness", pa.float64()),
    ("audio_decode_digest", pa.string()),
    ("audio_signature", pa.binary()),
)
NUMBERS = ("audio_seconds", "snr_db", "loudness", "silence_fraction", "clipping_fraction")
FLAGS: tuple[str, ...] = ()
#: Of several clips: their seconds together, the worst of what a policy asks a limit of, else the mean.
COMBINED = {"audio_seconds": "sum", "sample_rate": "min", "clipping_fraction": "max", "snr_db": "min"}

FRAME_MS = 20
FLOOR = 1e-10
CLIPPED_AT = 0.999
SILENT_BELOW_DB = -60.0
MIN_SNR_FRAMES = 10
MAX_SNR_DB = 100.0
DECIMALS = 6

Floats = npt.NDArray[np.float64]


def measure(audio: DecodedAudio, config: object) -> dict[str, object]:
    """The columns for one clip."""
    del config
    energies = _frame_energies(audio)
    return {
        "audio_seconds": round(audio.seconds, DECIMALS),
        "sample_rate": float(audio.sample_rate),
        "clipping_fraction": _fraction(np.abs(audio.mono) >= CLIPPED_AT),
        "snr_db": snr_db(energies),
        "silence_fraction": _fraction(_decibel(energies) < SILENT_BELOW_DB),
        "loudness": round(float(_decibel(energies.mean())), DECIMALS),
        "audio_decode_digest": audio.digest,
        "audio_signature": signature(audio),
    }


def snr_db(energies: Floats) -> float | None:
    """Signal-to-noise estimate from the spread of frame energies: the 95th against the 10th percentile, in dB.

    An estimate without a reference: music without pauses looks noisy, and digital silence between words counts as
    no noise (``MAX_SNR_DB``). None for clips of fewer than ``MIN_SNR_FRAMES`` frames.

    Source: the frame-energy histogram method of NIST SPQA ("stnr").
    """
    if len(energies) < MIN_SNR_FRAMES:
        return None
    loud, quiet = np.percentile(energies, 95), max(float(np.percentile(energies, 10)), FLOOR)
    ratio = max(float(loud) - quiet, FLOOR) / quiet
    return round(min(MAX_SNR_DB, float(10.0 * np.log10(ratio))), DECIMALS)


def _frame_energies(audio: DecodedAudio) -> Floats:
    """Mean square of each whole frame of ``FRAME_MS``; of the clip where it is shorter than one.

    ``loudness`` is the mean of these in dB relative to full scale, unweighted.
    """
    size = max(1, audio.sample_rate * FRAME_MS // 1000)
    count = max(1, len(audio.mono) // size)
    frames = audio.mono[: count * size].reshape(count, -1)
    return np.einsum("tf,tf->t", frames, frames, dtype=np.float64, casting="safe") / frames.shape[1]


def _decibel(energy: Floats | np.float64) -> Floats:
    return 10.0 * np.log10(np.maximum(energy, FLOOR))


def _fraction(mask: npt.NDArray[np.bool_]) -> float:
    return round(np.count_nonzero(mask) / mask.size, DECIMALS)
