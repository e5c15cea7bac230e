"""Damage of known strength, applied to the decoded features a model reads.

Severities run from 1 (hardly noticeable) to 5. The randomness of a corruption depends on (seed, corruption, severity,
sample id) alone, so every release's samples are damaged alike, in any order and batch. What each one is, and is not:

- ``image_jpeg``: the stored small picture compressed as JPEG and decoded again; blocks are large relative to it.
- ``image_blur``: Gaussian blur of the stored picture, radius in its pixels.
- ``image_low_light``: intensities scaled down, with the shot noise of few photons; no white-balance shift.
- ``audio_noise``: noise of equal mean energy in every mel band, at a signal-to-noise ratio; phases play no part.
- ``audio_clipping``: the loudest mel energies are cut to a ceiling; the harmonics real clipping adds are missing.
- ``audio_low_pass``: the upper mel bands fall to the clip's floor, as after recording at a low sample rate.
- ``audio_gaps``: stretches of 100 ms fall to the clip's floor, as packets lost on a line.
- ``text_ocr``: characters become look-alikes; one without a look-alike is lost. The language does not matter.
- ``drop_text``, ``drop_image``, ``drop_audio``: the modality is absent. It applies only where another one remains.
"""

import io
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from mm_assets.batching.samples import Sample
from mm_assets.evaluation.config import CorruptionConfig
from mm_assets.features.mel import STEPS
from mm_assets.identity.randomness import keyed_rng

Pixels = NDArray[np.uint8]
Frames = NDArray[np.float32]
Tokens = NDArray[np.int32]
Damage = Callable[[Any, int, np.random.Generator], Any]

#: Field of a sample that holds a modality.
FIELDS = {"text": "text_T", "image": "image_HWC", "audio": "audio_FM"}

JPEG_QUALITY = (50, 30, 20, 10, 5)
BLUR_RADIUS_PX = (0.5, 1.0, 1.5, 2.5, 4.0)
LIGHT_SHARE = (0.6, 0.4, 0.25, 0.15, 0.08)
FULL_LIGHT_PHOTONS = 400.0
SIGNAL_TO_NOISE_DB = (20.0, 15.0, 10.0, 5.0, 0.0)
CEILING_QUANTILE = (0.98, 0.95, 0.9, 0.8, 0.65)
KEPT_BANDS = (0.85, 0.7, 0.55, 0.4, 0.25)
GAP_SHARE = (0.05, 0.1, 0.2, 0.35, 0.5)
GAP_FRAMES = 10
CHARACTER_ERROR_RATE = (0.02, 0.05, 0.1, 0.2, 0.35)

#: The byte-level tokenizer: 0 padding, 1 begin, 2 end, 3 mask, then byte b as b + 4.
BEGIN, END, FIRST_BYTE = 1, 2, 4
LOOK_ALIKES = dict(
    zip(
        "0O1lIi5S8B2Zz6bhGCg9qceaosuvwnmrtfdpkxyjEFPRDQUVMNH",
        "O0l1llS5B8Z22b6bCG9ggecoa5vuvrnnftoqhkviFEFBOOVUNMN",
        strict=True,
    )
)


def damage(sample: Sample, corruption: CorruptionConfig, severity: int, seed: int) -> Sample:
    """A damaged copy of ``sample``; one that lacks the modality comes back as it is."""
    name, field = corruption.name, FIELDS[corruption.modality]
    value = getattr(sample, field)
    if value is None:
        return sample
    if corruption.is_drop:
        return replace(sample, **{field: None})
    rng = corruption_rng(seed, name, severity, sample.id)
    if corruption.modality == "text":
        return replace(sample, text_T=corrupt_text(value, severity, rng))
    if corruption.modality == "image":
        return replace(sample, image_HWC=corrupt_image(name, value, severity, rng))
    return replace(sample, audio_FM=corrupt_audio(name, value, severity, rng))


def corrupt_image(name: str, image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """A damaged copy of an RGB picture [H, W, 3]."""
    return _IMAGE[name](image, severity - 1, rng)


def corrupt_audio(name: str, audio: Frames, severity: int, rng: np.random.Generator) -> Frames:
    """A damaged copy of log-mel frames [frames, mels] as ``features.mel`` scales them; none stay none."""
    return _AUDIO[name](audio, severity - 1, rng) if audio.size else audio


def corrupt_text(text: Tokens, severity: int, rng: np.random.Generator) -> Tokens:
    """Byte-level tokens of the misread text, never longer than before and never without a character."""
    body = text[text >= FIRST_BYTE]
    # Cutting at max_text_tokens may leave half a character at the end; surrogateescape keeps its bytes.
    original = bytes((body - FIRST_BYTE).astype(np.uint8)).decode("utf-8", "surrogateescape")
    misread = "".join(_misread(original, CHARACTER_ERROR_RATE[severity - 1], rng)) or original[:1]
    data = np.frombuffer(misread.encode("utf-8", "surrogateescape"), np.uint8)
    tokens = data.astype(text.dtype) + FIRST_BYTE
    return np.concatenate([text[:1][text[:1] == BEGIN], tokens, text[-1:][text[-1:] == END]])


def corruption_rng(seed: int, name: str, severity: int, sample_id: str) -> np.random.Generator:
    """The randomness one sample is damaged with."""
    return keyed_rng("evaluation", seed, name, severity, sample_id)


def _misread(text: str, rate: float, rng: np.random.Generator) -> list[str]:
    hit = rng.random(len(text)) < rate
    return [
        LOOK_ALIKES.get(character, "") if damaged and not character.isspace() else character
        for character, damaged in zip(text, hit, strict=True)
    ]


def _jpeg(image: Pixels, level: int, _rng: np.random.Generator) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY[level], subsampling="4:2:0")
    with Image.open(buffer, formats=["JPEG"]) as decoded:
        return np.asarray(decoded.convert("RGB"))


def _blur(image: Pixels, level: int, _rng: np.random.Generator) -> Pixels:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(BLUR_RADIUS_PX[level])))


def _low_light(image: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    share = LIGHT_SHARE[level]
    photons = rng.poisson(image / 255.0 * FULL_LIGHT_PHOTONS * share)
    return np.clip(np.rint(photons / FULL_LIGHT_PHOTONS * 255.0), 0, 255).astype(np.uint8)


def _noise(audio: Frames, level: int, rng: np.random.Generator) -> Frames:
    energy = 10.0 ** (4.0 * audio.astype(np.float64) - 4.0)
    noise = energy.mean() / 10 ** (SIGNAL_TO_NOISE_DB[level] / 10)
    # The energy of Gaussian noise in one frequency bin is exponentially distributed.
    noisy = (np.log10(energy + noise * rng.exponential(size=audio.shape)) + 4.0) / 4.0
    return (np.round(noisy * STEPS) / STEPS).astype(np.float32)


def _clipping(audio: Frames, level: int, _rng: np.random.Generator) -> Frames:
    return np.minimum(audio, np.quantile(audio, CEILING_QUANTILE[level]).astype(np.float32))


def _low_pass(audio: Frames, level: int, _rng: np.random.Generator) -> Frames:
    damaged = audio.copy()
    damaged[:, max(1, round(audio.shape[1] * KEPT_BANDS[level])) :] = audio.min()
    return damaged


def _gaps(audio: Frames, level: int, rng: np.random.Generator) -> Frames:
    damaged = audio.copy()
    pieces = -(-len(audio) // GAP_FRAMES)
    lost = rng.permutation(pieces)[: math.ceil(pieces * GAP_SHARE[level])]
    for piece in lost:
        damaged[piece * GAP_FRAMES : (piece + 1) * GAP_FRAMES] = audio.min()
    return damaged


_IMAGE: dict[str, Damage] = {"image_jpeg": _jpeg, "image_blur": _blur, "image_low_light": _low_light}
_AUDIO: dict[str, Damage] = {
    "audio_noise": _noise,
    "audio_clipping": _clipping,
    "audio_low_pass": _low_pass,
    "audio_gaps": _gaps,
}
