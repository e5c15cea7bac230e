"""Damage grows with severity, depends on the sample's id alone, and keeps what a model can read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_assets.batching.samples import Sample
from mm_assets.errors import SpecError
from mm_assets.evaluation.config import CorruptionConfig, EvaluationConfig
from mm_assets.evaluation.corruptions import corruption_rng, damage
from mm_assets.modalities.audio.corruptions import CORRUPTIONS as AUDIO
from mm_assets.modalities.image.corruptions import CORRUPTIONS as IMAGE
from mm_assets.modalities.text.corruptions import CORRUPTIONS as TEXT
from mm_assets.modalities.text.tokenizer import BOS, EOS


def picture() -> np.ndarray:
    rows, columns = np.mgrid[0:64, 0:64]
    return np.stack([rows * 4, columns * 4, (rows // 8 + columns // 8) % 2 * 255], axis=2).astype(np.uint8)


def clip() -> np.ndarray:
    frames, mels = np.mgrid[0:200, 0:40]
    return (np.sin(frames / 9) * np.cos(mels / 7) / 2).astype(np.float32)


def tokens(text: str) -> np.ndarray:
    return np.array([BOS, *(byte + 4 for byte in text.encode()), EOS], np.int32)


def text_of(tokens: np.ndarray) -> str:
    return bytes(int(token) - 4 for token in tokens if token >= 4).decode()


@pytest.mark.parametrize("name", IMAGE)
def test_pictures_lose_more_at_every_severity(name: str) -> None:
    original = picture()
    damaged = [IMAGE[name](original, severity, corruption_rng(0, name, severity, "a")) for severity in range(1, 6)]
    losses = [float(np.abs(image.astype(int) - original).mean()) for image in damaged]
    assert losses == sorted(losses)
    assert losses[0] > 0
    assert all(image.shape == original.shape and image.dtype == np.uint8 for image in damaged)
    assert np.array_equal(original, picture()), "the sample itself is not touched"


@pytest.mark.parametrize("name", AUDIO)
def test_clips_lose_more_at_the_highest_severity(name: str) -> None:
    original = clip()
    mild, strong = (AUDIO[name](original, level, corruption_rng(0, name, level, "a")) for level in (1, 5))
    assert 0 < np.abs(mild - original).mean() < np.abs(strong - original).mean()
    assert strong.shape == original.shape
    assert strong.dtype == np.float32
    assert np.isfinite(strong).all()
    assert np.array_equal(original, clip()), "the sample itself is not touched"


@pytest.mark.parametrize("name", AUDIO)
@pytest.mark.parametrize("frames", [0, 1])
def test_the_shortest_clips_survive(name: str, frames: int) -> None:
    sample = Sample(id="a", tensors={"audio": clip()[:frames]})
    damaged = damage(sample, CorruptionConfig(name=name, severities=(5,)), 5, 0)
    assert damaged.tensors["audio"].shape == (frames, 40)


def test_the_noise_reaches_its_level() -> None:
    quiet = np.full((400, 40), 0.5, np.float32)
    noisy = AUDIO["audio_noise"](quiet, 5, corruption_rng(0, "audio_noise", 5, "a"))
    energies = [float((10.0 ** (4 * values.astype(np.float64) - 4)).mean()) for values in (quiet, noisy)]
    assert energies[1] == pytest.approx(2 * energies[0], rel=0.03), "0 dB: as much noise as signal"


def test_misread_text_looks_alike() -> None:
    misread = text_of(TEXT["text_ocr"](tokens("The cat is old " * 20), 5, corruption_rng(0, "text_ocr", 5, "a")))
    assert misread != "The cat is old " * 20
    assert misread.count(" ") == 80, "spaces stay"


@pytest.mark.property
@given(st.text(min_size=1, max_size=80), st.integers(1, 5), st.text(max_size=8))
def test_misread_text_is_still_text_of_at_most_the_same_length(text: str, severity: int, sample: str) -> None:
    original = tokens(text.encode(errors="ignore").decode() or "x")
    misread = TEXT["text_ocr"](original, severity, corruption_rng(0, "text_ocr", severity, sample))
    assert 3 <= len(misread) <= len(original)
    assert (misread[0], misread[-1]) == (BOS, EOS)
    assert text_of(misread)
    assert misread.dtype == np.int32


def test_a_text_cut_inside_a_character_keeps_its_bytes() -> None:
    cut = tokens("日本")[:-2]
    assert np.array_equal(TEXT["text_ocr"](cut, 1, corruption_rng(0, "text_ocr", 1, "b")), cut)


def test_the_same_sample_is_always_damaged_alike_and_others_differently() -> None:
    first, again, other = (
        IMAGE["image_low_light"](picture(), 3, corruption_rng(0, "image_low_light", 3, sample))
        for sample in ("a", "a", "b")
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "image_rain"}, "corruption image_rain: is unknown"),
        ({"name": "image_blur", "severities": (0,)}, r"from 1 to 5, got \[0\]"),
        ({"name": "image_blur", "severities": ()}, r"got \[\]"),
        ({"name": "drop_text", "severities": (3,)}, r"from 1 to 1, got \[3\]"),
    ],
)
def test_an_impossible_corruption_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        CorruptionConfig(**values)  # pyright: ignore[reportArgumentType]


def test_a_temperature_must_not_be_fitted_on_what_it_is_judged_on() -> None:
    with pytest.raises(SpecError, match="expected another split than test"):
        EvaluationConfig(calibration_split="test")
