import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mm_assets.errors import ObjectCorruptError, SpecError
from mm_assets.features.blobs import TarBlobs
from mm_assets.features.config import FeaturesConfig
from mm_assets.features.extract import extract_shard
from mm_assets.features.inputs import check_redactions
from mm_assets.features.preview import preview
from mm_assets.identity.canonical import digest_bytes
from mm_assets.modalities.text.personal_data import REDACTIONS, find
from mm_assets.settings import Settings
from mm_assets.snapshot.blobs import BlobRef
from mm_assets.store.objects import Store
from mm_assets.store.tables import map_arrow, read_parquet

#: Runs in a process of its own: decodes one noisy clip and one picture and prints the digest of both tensors.
PROBE = """
import hashlib, sys
from pathlib import Path
from mm_assets.modalities.audio.decode import decode as decode_audio
from mm_assets.modalities.audio.tensor import make_tensor as audio_tensor
from mm_assets.features.config import FeaturesConfig
from mm_assets.modalities.image.decode import decode as decode_image
from mm_assets.modalities.image.tensor import make_tensor as image_tensor
config = FeaturesConfig()
audio = decode_audio(Path(sys.argv[1]).read_bytes(), config)
image = decode_image(Path(sys.argv[2]).read_bytes(), config)
tensors = audio_tensor(audio, config)[0] + image_tensor(image, config)[0]
print(hashlib.sha256(tensors).hexdigest())
"""


@pytest.fixture
def samples(make_tone, make_blocks, to_wav, to_picture) -> dict[str, dict[str, bytes]]:
    """Six good samples in all kinds of combinations."""
    return {
        "s/d/all": {
            "txt": b"a red house",
            "png": to_picture(make_blocks(1)),
            "wav": to_wav(make_tone(300, 0.4, 8000), 8000),
        },
        "s/d/audio": {"flac": to_wav(make_tone(700, 0.2, 16_000), 16_000, "FLAC")},
        "s/d/image": {"jpg": to_picture(make_blocks(2), "JPEG")},
        "s/d/pair": {"txt": "zwei Häuser".encode(), "webp": to_picture(make_blocks(3), "WEBP")},
        "s/d/text": {"txt": b"only words"},
        "s/d/z": {"txt": b"the last one", "wav": to_wav(make_tone(900, 0.3, 44_100), 44_100)},
    }


def _read(store: Store, committed, name: str, folder: Path) -> pa.Table:
    path = store.fetch(committed.manifest.output(name).digest, folder)
    return map_arrow(path) if name.endswith(".arrow") else read_parquet(path)


def _digests(committed) -> dict[str, str]:
    return {output.name: output.digest for output in committed.manifest.outputs}


def test_tensors_and_signals_of_every_combination(make_features, store, samples, tmp_path):
    committed = make_features(samples)
    tensors = _read(store, committed, "tensors.arrow", tmp_path)
    signals = _read(store, committed, "signals.parquet", tmp_path)
    assert tensors.column("id").to_pylist() == sorted(samples) == signals.column("id").to_pylist()
    assert tensors.schema.metadata[b"image_size"] == b"64"
    row = tensors.slice(0, 1).to_pylist()[0]
    assert bytes(token - 4 for token in row["text"][1:-1]) == b"a red house"
    assert len(row["image"]) == 64 * 64 * 3
    assert np.frombuffer(row["audio"], "<f4").reshape(-1, 40).shape == (40, 40)
    only_text = tensors.slice(4, 1).to_pylist()[0]
    assert (only_text["image"], only_text["audio"]) == (None, None)
    first, text = signals.to_pylist()[0], signals.to_pylist()[4]
    assert (first["text_tokens"], first["audio_frames"], first["sample_rate"]) == (13, 40, 8000.0)
    assert (text["audio_frames"], text["has_image"], text["sharpness"], text["loudness"]) == (0, False, None, None)
    assert signals.schema.metadata[b"params.sample_rate"] == b"16000"
    assert not [name for name in signals.schema.metadata if name.startswith(b"codec")]
    assert committed.manifest.stats["modalities"] == {"text": 4, "image": 3, "audio": 3, "video": 0}


def test_bad_blobs_become_dead_letters_and_the_rest_goes_through(
    make_features, store, samples, to_picture, make_blocks, tmp_path
):
    png = to_picture(make_blocks(9))
    lying = bytearray(samples["s/d/z"]["wav"])
    lying[40:44] = (10_000_000).to_bytes(4, "little")
    bad = {
        "s/d/b1": {"txt": b"fine text", "png": png[: len(png) // 2]},
        "s/d/b2": {"wav": bytes(lying), "txt": b"fine too"},
        "s/d/b3": {"txt": b"\xff\xfe"},
    }
    committed = make_features(samples | bad)
    letters = _read(store, committed, "dead_letters.parquet", tmp_path).to_pylist()
    assert [(letter["id"], letter["modality"], letter["reason"]) for letter in letters] == [
        ("s/d/b1", "image", "truncated"),
        ("s/d/b2", "audio", "header_lies"),
        ("s/d/b3", "text", "text_not_utf8"),
    ]
    assert letters[0]["digest"] == digest_bytes(bad["s/d/b1"]["png"])
    assert letters[0]["size_bytes"] == len(bad["s/d/b1"]["png"])
    assert {letter["stage"] for letter in letters} == {"features"}
    stats = committed.manifest.stats
    assert (stats["rows_in"], stats["rows_out"], stats["dead_letters"]) == (9, 6, 3)
    good_only = make_features(samples)
    assert _digests(committed)["tensors.arrow"] == _digests(good_only)["tensors.arrow"]


def test_empty_shard_has_all_files_without_rows(make_features, store, tmp_path):
    committed = make_features({})
    for name in ("tensors.arrow", "signals.parquet", "dead_letters.parquet"):
        assert _read(store, committed, name, tmp_path).num_rows == 0
    assert committed.manifest.stats["rows_out"] == 0
    assert "| 0 | 0 | 0 | 0 |" in preview(store, committed.manifest)


@pytest.mark.property
@hypothesis_settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(seed=st.integers(0, 1000))
def test_row_order_of_the_snapshot_does_not_change_a_byte(seed, make_features, samples):
    order = sorted(samples)
    random.Random(seed).shuffle(order)
    assert _digests(make_features(samples, order=order)) == _digests(make_features(samples))


def test_batches_have_256_rows_whatever_was_rejected(make_features, store, tmp_path):
    samples = {f"s/d/{number:04d}": {"txt": b"\xff" if number % 3 == 0 else b"word"} for number in range(600)}
    committed = make_features(samples)
    path = store.fetch(committed.manifest.output("tensors.arrow").digest, tmp_path)
    with pa.ipc.open_file(str(path)) as reader:
        sizes = [reader.get_batch(number).num_rows for number in range(reader.num_record_batches)]
    assert sizes == [256, 144]


def test_tensors_do_not_depend_on_the_number_of_threads(samples, tmp_path):
    clip, picture = tmp_path / "a.wav", tmp_path / "a.png"
    clip.write_bytes(samples["s/d/z"]["wav"])
    picture.write_bytes(samples["s/d/all"]["png"])
    answers = [
        subprocess.run(
            [sys.executable, "-c", PROBE, str(clip), str(picture)],
            env={"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PATH": "/usr/bin:/bin"},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "4")
    ]
    assert len(answers[0].strip()) == 64
    assert len(set(answers)) == 1


def test_blob_that_differs_from_its_row_fails_the_shard_by_name(tmp_path):
    path = tmp_path / "samples.tar"
    path.write_bytes(b"changed")
    digest = digest_bytes(b"written")
    ref = BlobRef(sample="s/d/1", modality="text", digest=digest, offset=0, size_bytes=7, format="txt", name="text")
    with (
        TarBlobs(path) as blobs,
        pytest.raises(ObjectCorruptError, match=r"sample s/d/1: text in samples.tar .* Run the shard"),
    ):
        blobs.read(ref)


def test_signals_never_drop_a_sample(make_features, to_picture, to_wav):
    from PIL import Image

    poor = {
        "s/d/1": {"png": to_picture(Image.new("L", (1, 1)))},
        "s/d/2": {"wav": to_wav(np.zeros(1, np.float32), 8000)},
        "s/d/3": {"txt": b" "},
        "s/d/4": {"wav": to_wav(np.ones((100, 3), np.float32), 192_000, "WAV", "FLOAT")},
        "s/d/5": {"png": to_picture(Image.new("1", (3, 700)))},
    }
    assert make_features(poor, config=FeaturesConfig()).manifest.stats["rows_out"] == 5


def _texts(tensors: pa.Table) -> str:
    return "\n".join(bytes(token - 4 for token in row if token >= 4).decode() for row in tensors["text"].to_pylist())


def test_redacted_personal_data_reach_no_tensor(make_features, store, tmp_path):
    personal = {
        "email": "jane.doe@example.org",
        "iban": "GB29NWBK60161331926819",
        "payment_card": "4111 1111 1111 1111",
        "ip_address": "192.168.0.17",
        "phone": "+49 30 1234567",
    }
    samples = {f"s/d/{kind}": {"txt": f"before {value} and after".encode()} for kind, value in personal.items()}
    samples["s/d/plain"] = {"txt": b"nothing to hide"}
    plain, redacted = make_features(samples), make_features(samples, FeaturesConfig(redactions=REDACTIONS))
    assert all(value in _texts(_read(store, plain, "tensors.arrow", tmp_path)) for value in personal.values())
    texts = _texts(_read(store, redacted, "tensors.arrow", tmp_path))
    assert sum(map(len, find(texts).values())) == 0
    assert "before <IBAN> and after" in texts
    signals = _read(store, redacted, "signals.parquet", tmp_path)
    assert signals["num_redacted"].to_pylist() == [1, 1, 1, 1, 1, 0]
    assert signals["has_email"].to_pylist() == [True, False, False, False, False, False]
    assert signals.schema.metadata[b"params.redactions"] == ",".join(sorted(REDACTIONS)).encode()


def test_redaction_that_is_off_or_matches_nothing_changes_no_byte_of_a_tensor(make_features, store, samples, tmp_path):
    plain, redacted = make_features(samples), make_features(samples, FeaturesConfig(redactions=("email@1",)))
    assert _digests(plain)["tensors.arrow"] == _digests(redacted)["tensors.arrow"]
    assert b"params.redactions" not in _read(store, plain, "signals.parquet", tmp_path).schema.metadata


@pytest.mark.parametrize("names", [("email@2",), ("email",), ("names@1",), ("email@1", "email@1")])
def test_redaction_of_another_version_or_an_unknown_one_is_refused(names):
    with pytest.raises(SpecError, match=rf"redaction {names[0]}: is unknown or named twice: expected some of email@1"):
        check_redactions(FeaturesConfig(redactions=names))


def test_signals_of_two_modalities_are_there_where_both_are(make_features, store, samples, tmp_path):
    signals = _read(store, make_features(samples), "signals.parquet", tmp_path)
    # 11 characters in 0.4 s; 12 in 0.3 s.
    assert signals["caption_chars_per_second"].to_pylist() == [27.5, None, None, None, None, 40.0]


def test_every_modality_has_the_digest_of_what_was_decoded(make_features, store, samples, tmp_path):
    row = _read(store, make_features(samples), "signals.parquet", tmp_path).to_pylist()[0]
    digests = [row["text_decode_digest"], row["image_pixels_digest"], row["audio_decode_digest"]]
    assert digests[0] == digest_bytes(b"a red house")
    assert len(set(digests)) == 3
    assert all(digest.startswith("sha256:") for digest in digests)


def test_preview_counts_modalities_and_languages(make_features, store, samples, settings: Settings):
    text = preview(store, make_features(samples).manifest)
    assert "| samples | text | image | audio | video | dead letters |" in text
    assert "| 6 | 4 | 3 | 3 | 0 | 0 |" in text
    assert "| sharpness | 3 |" in text


def test_a_fault_of_a_decoder_costs_one_sample(tmp_path):
    words, scan = b"good words", "Ein gutes Wort für alle".encode()
    (tmp_path / "blobs").write_bytes(words + scan)
    rows = [
        {"id": f"s/d/{number}", "object": "o", "text_digest": digest_bytes(data), "text_offset": offset,
         "text_size_bytes": len(data), "text_format": "txt"}
        for number, (data, offset) in enumerate([(words, 0), (scan, len(words))])
    ]  # fmt: skip
    nonsense: Any = "many"
    broken = replace(FeaturesConfig(), max_text_bytes=nonsense)
    with TarBlobs(tmp_path / "blobs") as blobs:
        made = extract_shard(pa.Table.from_pylist(rows), blobs, broken, tmp_path)
    assert made.stats["reasons"] == {"unexpected_error": 2}
    letters = read_parquet(tmp_path / "dead_letters.parquet").to_pylist()
    assert letters[0]["detail"] == "TypeError while it was read; the log has the traceback"
