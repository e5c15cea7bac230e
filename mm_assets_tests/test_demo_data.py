"""The demo's drop: deterministic bytes, real flaws, every modality combination."""

import hashlib
import io
import json
import tarfile
import wave
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mm_assets.demo.catalog import LANGUAGES, choose, read_catalog
from mm_assets.demo.data import PACKAGES, SEED, SOURCE, build_demo_tars, source_yaml
from mm_assets.demo.films import build_films_drop
from mm_assets.demo.speech import SAMPLE_RATE, Utterance, speak
from mm_assets.drops.source import parse_source
from mm_assets.errors import StageError
from mm_assets.features.config import FeaturesConfig
from mm_assets.modalities.video.decode import decode

NUM_EMOJI = 60

Samples = dict[str, dict[str, bytes]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drop")
    build_demo_tars(path, num_emoji=NUM_EMOJI, num_workers=2)
    return path


@pytest.fixture(scope="module")
def samples(folder: Path) -> Samples:
    found: Samples = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                found.setdefault(key, {})[extension] = file.read()
    return found


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_same_drop_is_built_by_any_number_of_workers(folder: Path, tmp_path: Path, num_workers: int) -> None:
    build_demo_tars(tmp_path, num_emoji=NUM_EMOJI, num_workers=num_workers)
    assert digests(tmp_path) == digests(folder)


def test_an_utterance_does_not_depend_on_what_was_spoken_before() -> None:
    hello, other = Utterance(voice="en", text="grinning face"), Utterance(voice="fr", text="visage rieur")
    assert speak([hello, other, hello], num_workers=1)[0::2] == speak([hello], num_workers=1) * 2


def test_speech_is_a_mono_wav_of_the_declared_rate() -> None:
    (wav,) = speak([Utterance(voice="es", text="pájaro negro")], num_workers=1)
    with wave.open(io.BytesIO(wav)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, SAMPLE_RATE)
        assert file.getnframes() > SAMPLE_RATE / 4


def test_an_unknown_voice_ends_with_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StageError, match="eSpeak process ended early with status 1"):
        speak([Utterance(voice="no-such-voice", text="hello")], num_workers=1)
    capfd.readouterr()


def test_every_language_of_an_emoji_is_a_sample_of_one_group_in_one_tar(folder: Path, samples: Samples) -> None:
    assert len(samples) == NUM_EMOJI * len(LANGUAGES)
    groups: dict[str, set[str]] = {}
    for parts in samples.values():
        record = json.loads(parts["json"])
        groups.setdefault(record["group"], set()).add(record["language"])
    assert set(map(frozenset, groups.values())) == {frozenset(LANGUAGES)}
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            counts = Counter(name.partition(".")[0].rpartition("-")[0] for name in tar.getnames() if ".json" in name)
        assert set(counts.values()) == {len(LANGUAGES)}


def test_all_modality_combinations_and_all_categories_occur(samples: Samples) -> None:
    combinations = {frozenset(parts) - {"json"} for parts in samples.values()}
    assert combinations >= {
        frozenset({"txt", "png", "wav"}),
        frozenset({"txt", "png"}),
        frozenset({"txt", "wav"}),
    }
    labels = Counter(json.loads(parts["json"]).get("label") for parts in samples.values())
    assert len(labels) == 10
    assert labels[None] > 0


def test_withheld_speech_is_declared_in_the_sample(samples: Samples) -> None:
    for parts in samples.values():
        assert json.loads(parts["json"])["speech"] == ("synthetic" if "wav" in parts else "withheld")


def test_tar_headers_hold_no_clock_and_no_user(folder: Path) -> None:
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            assert {(member.mtime, member.uid, member.gid, member.uname) for member in tar} == {(0, 0, 0, "")}


def test_the_catalog_keeps_the_flaws_of_its_packages() -> None:
    catalog = read_catalog()
    assert sum(emoji.picture is None for emoji in catalog) == 9
    assert sum(emoji.category is None for emoji in catalog) == 25
    chosen = choose(catalog, 700, seed=SEED)
    assert len({emoji.codepoints for emoji in chosen}) == 700
    pixels = Counter(
        Image.open(emoji.picture).convert("RGBA").tobytes() for emoji in chosen if emoji.picture is not None
    )
    assert max(pixels.values()) > 1


def test_the_source_description_is_valid() -> None:
    assert parse_source(source_yaml(SOURCE, PACKAGES).encode(), "source.yaml").licence.startswith("CC-BY-4.0")


def test_films_are_the_same_bytes_each_time_and_their_scenes_are_what_is_said(tmp_path: Path) -> None:
    captured = ("2026-11-01T00:00:00Z", "2026-11-21T00:00:00Z")
    for name in ("one", "two"):
        build_films_drop(tmp_path / name, "d", num_emoji=80, seed=SEED, captured=captured)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    rows = [json.loads(line) for line in (tmp_path / "one" / "index.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 10
    assert not {row["group"] for row in rows} & {emoji.codepoints for emoji in choose(read_catalog(), 80, seed=SEED)}
    assert {row["video"] for row in rows} == {"film-00.mkv", "film-01.mkv"}
    assert "Synthetic" in (tmp_path / "one" / "source.yaml").read_text(encoding="utf-8")
    scene, config = rows[1], FeaturesConfig()
    whole = decode((tmp_path / "one" / scene["video"]).read_bytes(), config)
    ends = round(scene["start_s"] * 1e6), round(scene["end_s"] * 1e6)
    made = decode((tmp_path / "one" / scene["video"]).read_bytes(), config, ends)
    emoji = next(emoji for emoji in read_catalog() if emoji.codepoints == scene["group"])
    assert emoji.picture is not None
    with Image.open(emoji.picture) as file:
        shown = Image.new("RGBA", (96, 96), "white")
        shown.alpha_composite(file.convert("RGBA"), (24 * (made.times_us[0] // 100_000) // (made.num_frames - 1), 12))
    # Without loss: the pixels of the film are those of the picture.
    assert made.frames[0].rgb.tobytes() == shown.convert("RGB").tobytes()
    assert made.audio is not None
    assert whole.audio is not None
    first = round(scene["start_s"] * SAMPLE_RATE)
    assert (made.audio.mono == whole.audio.mono[first : first + len(made.audio.mono)]).all()
    (wav,) = speak([Utterance(voice=scene["language"], text=scene["text"])], num_workers=1)
    spoken = np.frombuffer(wav[44:], "<i2") / np.float32(32768)
    assert (made.audio.mono[: len(spoken)] == spoken).all()
