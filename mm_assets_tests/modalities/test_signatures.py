"""Signatures of pictures, clips and texts: golden values, and what they do not depend on."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from mm_assets.modalities.audio import nearness as audio_nearness
from mm_assets.modalities.audio.decode import DecodedAudio
from mm_assets.modalities.audio.signature import signature as of_audio
from mm_assets.modalities.image import nearness as image_nearness
from mm_assets.modalities.image.decode import DecodedImage
from mm_assets.modalities.image.signature import signature as of_image
from mm_assets.modalities.text import nearness as text_nearness
from mm_assets.modalities.text.signature import bare
from mm_assets.modalities.text.signature import signature as of_text

#: Of picture, clip and text.
GOLDEN = ("8a1513b5563b0c1a", "6473dfd5c7bf5bcf", "ad36d3e5a18d7bee")


def short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def gradient(width: int, height: int) -> Image.Image:
    across = np.linspace(0, 255, width)[None, :] * np.ones((height, 1))
    down = np.linspace(255, 0, height)[:, None] * np.ones((1, width))
    return Image.fromarray(np.stack([across, down, (across + down) / 2], axis=-1).astype(np.uint8))


def sweep(rate: int, *, seconds: float = 1.0) -> DecodedAudio:
    time = np.arange(int(rate * seconds)) / rate
    mono = (0.5 * np.sin(2 * np.pi * (300 + 900 * time) * time) * (0.2 + time)).astype(np.float32)
    return DecodedAudio(mono=mono, sample_rate=rate, channels=1, digest="sha256:" + "0" * 64)


def test_signatures_are_golden_values():
    image, audio, text = of_image(DecodedImage(rgb=gradient(48, 40))), of_audio(sweep(16_000)), of_text("Straße, 12")
    assert text is not None
    lengths = (image_nearness.NUM_BYTES, audio_nearness.NUM_BYTES, text_nearness.NUM_BYTES)
    assert (len(image), len(audio), len(text)) == lengths
    assert (short(image), short(audio), short(text)) == GOLDEN


def test_a_flat_picture_has_its_colour_and_nothing_else():
    values = np.frombuffer(of_image(DecodedImage(rgb=Image.new("RGB", (5, 9), (128, 128, 128)))), "<i2")
    assert not values.any()
    values = np.frombuffer(of_image(DecodedImage(rgb=Image.new("RGB", (5, 9), (138, 138, 138)))), "<i2")
    assert values[0] == 80
    assert not values[1:].any()


def test_distance_of_signatures_is_the_difference_of_the_pictures():
    one, other = (
        np.frombuffer(of_image(DecodedImage(rgb=gradient(64, 64).point(lambda v, k=k: v * k))), "<i2")
        for k in (1.0, 0.9)
    )
    pixels = [
        np.asarray(gradient(64, 64).point(lambda v, k=k: v * k).convert("YCbCr")).astype(float) for k in (1.0, 0.9)
    ]
    difference = np.sqrt(((pixels[0] - pixels[1]) ** 2).sum(axis=-1).mean())
    assert np.linalg.norm(one.astype(float) - other) / 8 == pytest.approx(difference, rel=0.02)


@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
def test_a_clip_at_another_rate_level_and_with_silence_around_it_is_near(rate):
    clip = sweep(rate)
    quiet = np.concatenate([np.zeros(rate // 5), 0.25 * clip.mono, np.zeros(rate // 10)]).astype(np.float32)
    moved = DecodedAudio(mono=quiet, sample_rate=rate, channels=1, digest=clip.digest)
    signatures = np.stack([np.frombuffer(of_audio(given), np.int8) for given in (sweep(16_000), moved)])
    assert audio_nearness.are_near(signatures[:1], signatures[1:]).all()


@pytest.mark.parametrize("rate", [1_000, 4_000, 192_000])
def test_a_clip_of_any_rate_has_a_signature(rate):
    assert len(of_audio(sweep(rate)) or b"") == audio_nearness.NUM_BYTES


def clip_of(samples) -> DecodedAudio:
    return DecodedAudio(mono=np.asarray(samples, np.float32), sample_rate=16_000, channels=1, digest="sha256:")


@pytest.mark.parametrize("samples", [0, 1, 100, 16_000])
def test_silence_of_any_length_has_no_signature(samples):
    assert of_audio(clip_of(np.zeros(samples))) is None


@pytest.mark.parametrize("rate", [1, 100])
def test_a_clip_without_any_band_has_no_signature(rate):
    assert of_audio(sweep(rate)) is None


def test_steady_sounds_have_no_signature():
    rng, t = np.random.default_rng(1), np.arange(64_000) / 16_000
    hum = sum(0.2 / k * np.sin(2 * np.pi * 50 * k * t) for k in range(1, 40)) + 0.005 * rng.normal(size=len(t))
    for steady in (0.3 * np.sin(2 * np.pi * 440 * t), hum, 0.1 * rng.normal(size=len(t))):
        assert of_audio(clip_of(steady)) is None


@pytest.mark.parametrize("seconds", [0.5, 1.0])
def test_unrelated_noise_is_not_near_and_an_encoded_copy_of_speech_like_sound_is(seconds):
    """Short noise has a signature; its distance is at most 3.2 dB, below the limit for copies."""
    rng = np.random.default_rng(2)
    noise = [of_audio(clip_of(0.1 * rng.normal(size=int(16_000 * seconds)))) for _ in range(20)]
    values = audio_nearness.parse(np.stack([np.frombuffer(data, np.uint8) for data in noise if data is not None]))
    assert len(values) == 20
    left, right = np.triu_indices(20, 1)
    apart = np.sqrt(((values[left].astype(float) - values[right]) ** 2).mean(axis=1)) / 2
    assert apart.max() < audio_nearness.NEAR_DB
    assert not audio_nearness.are_near(values[left], values[right]).any()
    assert audio_nearness.are_near(values, values).all()


@pytest.mark.parametrize(
    ("one", "other"),
    [("Café, ISTANBUL!", "cafe istanbul"), ("ﬁne  print", "FINE PRINT"), ("İzmir", "izmır"), ("Ένα", "ΕΝΑ")],
)
def test_form_does_not_change_the_signature_of_a_text(one, other):
    assert bare(one) == bare(other)
    assert of_text(one) == of_text(other)


def test_a_text_of_symbols_keeps_them_and_an_empty_one_has_no_signature():
    assert bare("🎉 🎉") == "🎉 🎉"
    assert of_text("🎉") != of_text("🎊")
    assert of_text(" \n\t") is None


def test_vowel_signs_that_are_no_accents_stay():
    assert bare("किताब") != bare("कताब")
