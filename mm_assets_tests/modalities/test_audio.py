import io

import numpy as np
import pytest
import soundfile

from mm_assets.drops.limits import SnapshotConfig
from mm_assets.features.config import FeaturesConfig
from mm_assets.identity.canonical import digest_bytes
from mm_assets.modalities.audio.decode import decode
from mm_assets.modalities.audio.header import inspect_header
from mm_assets.modalities.audio.mel import log_mel, mel_frequencies, mel_matrix
from mm_assets.modalities.audio.signals import measure
from mm_assets.modalities.audio.tensor import resampled_start
from mm_assets.modalities.reasons import BlobRejectedError, Refusal

CONFIG = FeaturesConfig()
#: Log-mel of half a second of a sawtooth; another value means that every release's audio tensors change.
GOLDEN_MEL = "sha256:6518707bbd8ee180f37fe6d7daaa65d0c74b88034c8b8474bfd2400e518e47d4"


def _band(frequency: float) -> int:
    edges = mel_frequencies(CONFIG.sample_rate, CONFIG.num_mels)
    return int(np.argmin(np.abs(edges[1:-1] - frequency)))


@pytest.mark.parametrize("frequency", [200.0, 440.0, 1000.0, 3500.0, 7000.0])
def test_sine_peaks_in_its_own_mel_band(frequency, make_tone):
    frames = log_mel(make_tone(frequency, 0.5, 16_000), CONFIG)
    assert frames.shape == (50, 40)
    assert frames.dtype == np.float32
    assert (frames[:45].argmax(axis=1) == _band(frequency)).all()


def test_log_mel_of_a_sawtooth_has_its_golden_digest():
    wave = ((np.arange(8_000) % 40) / 40.0 - 0.5).astype(np.float32)
    assert digest_bytes(log_mel(wave, CONFIG).tobytes()) == GOLDEN_MEL


def test_log_mel_values_are_multiples_of_a_fixed_step(make_tone):
    frames = log_mel(make_tone(440.0, 0.3, 16_000), CONFIG).astype(np.float64) * 1024
    assert (frames == np.round(frames)).all()


def test_mel_bands_cover_every_bin_between_the_outer_edges():
    matrix = mel_matrix(16_000, 512, 40)
    assert matrix.shape == (257, 40)
    assert (matrix[2:-2].sum(axis=1) > 0).all()


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "PCM_24"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", None)],
)
@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2), (16_000, 1)])
def test_every_container_decodes_to_the_same_sound(kind, subtype, rate, channels, make_tone, to_wav):
    tone = np.stack([make_tone(500.0, 1.0, rate)] * channels, axis=1)
    decoded = decode(to_wav(tone, rate, kind, subtype), CONFIG)
    assert (decoded.sample_rate, decoded.channels) == (rate, channels)
    assert decoded.seconds == pytest.approx(1.0, abs=0.2)
    frames = log_mel(resampled_start(decoded, CONFIG), CONFIG)
    assert abs(len(frames) - 100) <= 20
    assert (frames[10:70].argmax(axis=1) == _band(500.0)).all()


def test_lossless_containers_share_their_decode_digest(make_tone, to_wav):
    tone = np.round(make_tone(500.0, 0.2, 16_000) * 32767).astype(np.int16)
    assert (
        decode(to_wav(tone, 16_000), CONFIG).digest
        == decode(to_wav(tone, 16_000, "FLAC"), CONFIG).digest
        != decode(to_wav(tone, 8_000), CONFIG).digest
    )


def test_stereo_is_averaged(make_tone, to_wav):
    tone = make_tone(500.0, 0.1, 16_000)
    decoded = decode(to_wav(np.stack([tone, -tone], axis=1), 16_000, "WAV", "FLOAT"), CONFIG)
    assert (decoded.mono == 0).all()


def test_wav_whose_data_chunk_is_longer_than_the_file_lies(make_tone, to_wav):
    data = bytearray(to_wav(make_tone(440.0, 0.1, 16_000), 16_000))
    position = data.index(b"data") + 4
    data[position : position + 4] = (1_000_000).to_bytes(4, "little")
    with pytest.raises(BlobRejectedError, match="1000000 bytes at byte 36; 3200 follow") as caught:
        decode(bytes(data), CONFIG)
    assert caught.value.reason == "header_lies"


def test_wav_whose_byte_rate_contradicts_its_format_lies(make_tone, to_wav):
    data = bytearray(to_wav(make_tone(440.0, 0.1, 16_000), 16_000))
    data[28:32] = (1).to_bytes(4, "little")
    with pytest.raises(BlobRejectedError, match="32000 bytes per second") as caught:
        decode(bytes(data), CONFIG)
    assert caught.value.reason == "header_lies"


def test_flac_cut_in_the_middle_is_rejected(to_wav):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 64_000).astype(np.float32)
    data = to_wav(noise, 16_000, "FLAC", "PCM_16")
    with pytest.raises(BlobRejectedError) as caught:
        decode(data[: len(data) // 2], CONFIG)
    assert caught.value.reason in ("truncated", "undecodable", "bad_header")
    assert "0x" not in caught.value.detail


def test_bytes_that_are_no_clip_name_no_address():
    with pytest.raises(BlobRejectedError) as caught:
        decode(b"not audio at all", CONFIG)
    assert caught.value.reason == "unsupported_format"
    assert "0x" not in caught.value.detail


def test_clip_longer_than_the_ceiling_is_refused_by_its_header(to_wav):
    data = to_wav(np.zeros(8_000 * 3, np.float32), 8_000)
    with pytest.raises(BlobRejectedError, match=r"declares 3\.0 s of sound; 2 s are allowed") as caught:
        decode(data, FeaturesConfig(max_decoded_seconds=2.0))
    assert caught.value.reason == "too_many_seconds"


def test_float_clip_with_nan_is_rejected(to_wav):
    samples = np.zeros(1_000, np.float32)
    samples[10] = np.nan
    with pytest.raises(BlobRejectedError) as caught:
        decode(to_wav(samples, 8_000, "WAV", "FLOAT"), CONFIG)
    assert caught.value.reason == "not_finite"


def test_clip_without_samples_is_rejected(to_wav):
    with pytest.raises(BlobRejectedError) as caught:
        decode(to_wav(np.zeros(0, np.float32), 8_000), CONFIG)
    assert caught.value.reason == "no_content"


def test_long_clip_is_cut_but_its_signals_are_about_all_of_it(make_tone, to_wav):
    decoded = decode(to_wav(make_tone(440.0, 6.0, 22_050), 22_050), CONFIG)
    assert len(log_mel(resampled_start(decoded, CONFIG), CONFIG)) == 400
    assert measure(decoded, CONFIG)["audio_seconds"] == 6.0


def test_audio_signals_see_silence_clipping_noise_and_level(make_tone, to_wav):
    rng = np.random.default_rng(1)
    speech = np.concatenate([make_tone(300.0, 0.5, 16_000), np.zeros(8_000, np.float32)])
    quiet = measure(decode(to_wav(speech, 16_000), CONFIG), CONFIG)
    noise = rng.normal(0, 0.05, len(speech)).astype(np.float32)
    noisy = measure(decode(to_wav(speech + noise, 16_000), CONFIG), CONFIG)
    loud = measure(decode(to_wav(np.clip(speech * 4, -1, 1), 16_000), CONFIG), CONFIG)
    assert quiet["silence_fraction"] == 0.5
    assert quiet["loudness"] == pytest.approx(10 * np.log10(0.125 / 2), abs=0.01)
    assert quiet["clipping_fraction"] == 0.0
    assert noisy["snr_db"] < 30 < quiet["snr_db"]
    assert loud["clipping_fraction"] > 0.2


def _without_length(data: bytes) -> bytes:
    """The FLAC as an encoder leaves it that writes to a pipe: its number of samples is not filled in."""
    return data[:21] + bytes([data[21] & 0xF0]) + bytes(4) + data[26:]


def test_a_flac_without_a_length_is_judged_by_decoding(make_tone):
    file = io.BytesIO()
    soundfile.write(file, make_tone(440.0, 0.5, 16_000), 16_000, format="FLAC")
    streamed = _without_length(file.getvalue())
    assert inspect_header(streamed, SnapshotConfig()) == "flac"
    assert decode(streamed, CONFIG).digest == decode(file.getvalue(), CONFIG).digest
    refused = inspect_header(streamed, SnapshotConfig(max_audio_seconds=0.2))
    assert isinstance(refused, Refusal)
    assert refused.reason == "too_many_seconds"
    assert refused.detail == "flac holds more than the 0.2 s that are allowed"
    cut = inspect_header(streamed[:60], SnapshotConfig())
    assert isinstance(cut, Refusal)


@pytest.mark.parametrize("decibel", [5, 10, 20, 40])
def test_signal_to_noise_of_a_tone_with_pauses_in_known_noise_is_estimated_within_one_decibel(
    decibel, make_tone, to_wav
):
    rate = 16_000
    tone = make_tone(440, 4.0, rate) * (np.arange(4 * rate) // (rate // 2) % 2)  # Half a second of each in turn.
    power = 0.5**2 / 2
    noise = np.random.default_rng(7).normal(0, np.sqrt(power / 10 ** (decibel / 10)), len(tone))
    clip = decode(to_wav((tone + noise).astype(np.float32), rate, "WAV", "FLOAT"), CONFIG)
    assert measure(clip, CONFIG)["snr_db"] == pytest.approx(decibel, abs=1.0)


def _with_length(data: bytes, num_frames: int) -> bytes:
    """A FLAC stream that declares another number of samples."""
    field = int.from_bytes(data[18:26], "big")
    return data[:18] + (field >> 36 << 36 | num_frames).to_bytes(8, "big") + data[26:]


def _outcome(data: bytes) -> str:
    """The format of what decodes, or why it does not."""
    found = inspect_header(data, SnapshotConfig())
    if isinstance(found, Refusal):
        return f"{found.reason}: {found.detail}"
    try:
        decode(data, CONFIG)
    except BlobRejectedError as error:
        return f"{error.reason}: {error.detail}"
    return found


@pytest.mark.parametrize(
    ("kind", "subtype", "said"),
    [
        ("WAV", None, "header_lies: wav has a second file at byte"),
        ("FLAC", None, "header_lies: header declares 32000 samples, and more data follow"),
        ("MP3", None, "header_lies: mp3 has a second file behind the first, from byte"),
        ("OGG", "VORBIS", "header_lies: ogg has a second stream behind the first, from byte"),
        ("OGG", "OPUS", "header_lies: ogg has a second stream behind the first, from byte"),
    ],
)
def test_two_clips_one_behind_the_other_are_refused(kind, subtype, said, make_tone, to_wav):
    one = to_wav(make_tone(440.0, 2.0, 16_000), 16_000, kind, subtype)
    assert _outcome(one) == kind.lower()
    assert _outcome(one + one).startswith(said)


def test_a_flac_that_has_more_than_it_declares_is_refused(make_tone, to_wav):
    data = to_wav(make_tone(440.0, 1.0, 16_000), 16_000, "FLAC", "PCM_16")
    assert _outcome(_with_length(data, 9_000)) == "header_lies: header declares 9000 samples, and more data follow"
    assert _outcome(data + b"TAG" + bytes(125)) == "flac"


def test_an_mp3_that_has_more_than_its_first_frame_declares_is_refused(make_tone, to_wav):
    data = to_wav(make_tone(440.0, 3.0, 16_000), 16_000, "MP3", None)
    place = data.index(b"Xing") + 8
    declared = int.from_bytes(data[place : place + 4], "big")
    short = data[:place] + (declared // 3).to_bytes(4, "big") + data[place + 4 :]
    assert _outcome(short).startswith("header_lies: mp3 is read as ")
    tagged = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + data + b"TAG" + bytes(125)
    assert _outcome(tagged) == "mp3"


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_that_is_cut_off_is_truncated(subtype, make_tone, to_wav):
    data = to_wav(make_tone(440.0, 2.0, 16_000), 16_000, "OGG", subtype)
    assert _outcome(data[: len(data) // 2]).startswith("truncated: ogg page at byte ")
