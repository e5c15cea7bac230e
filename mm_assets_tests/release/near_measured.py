"""How well near duplicates are found: copies that are grouped with their original, unrelated pairs that are grouped.

``python -m mm_assets_tests.release.near_measured [FOLDER]`` prints the table of docs/decisions/0018-near-duplicates.md;
with a folder, also of the pictures in it, cut into tiles.
"""

import io
import json
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from PIL import Image

from mm_assets.demo.catalog import LANGUAGES, choose, read_catalog
from mm_assets.demo.speech import Utterance, speak
from mm_assets.features.config import FeaturesConfig
from mm_assets.modalities.table import aspect
from mm_assets_tests.release.drawings import as_jpeg, noise_field
from mm_assets_tests.release.lineages import near_groups

CONFIG = FeaturesConfig()
SEED = 20_261_121
TILE = 96
WORDS = (
    "river window garden market yellow letter mountain signal winter engine paper silver doctor music bridge forest "
    "station coffee island picture summer kitchen teacher morning evening village holiday machine library captain"
).split()


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """``missed`` copies by kind of copy; ``grouped`` share of unrelated pairs that are in one group."""

    num_originals: int
    num_copies: int
    missed: Mapping[str, int]
    grouped: float

    @property
    def found(self) -> float:
        """Share of copies that are grouped with their original."""
        return 1 - sum(self.missed.values()) / self.num_copies


def measure(modality: str, originals: Sequence[bytes], copies: Mapping[str, Sequence[bytes]]) -> Figures:
    """Groups originals and copies together, and the originals alone.

    Args:
        modality: Whose signatures are compared.
        originals: Blobs, each different from the others.
        copies: By kind, a copy of each original.
    """
    nearness = aspect(modality, "nearness")
    signed = [_signatures(modality, blobs) for blobs in (originals, *copies.values())]
    together = near_groups(np.concatenate(signed), nearness).reshape(len(signed), -1)
    missed = {kind: int((row != together[0]).sum()) for kind, row in zip(copies, together[1:], strict=True)}
    sizes = np.bincount(near_groups(signed[0], nearness))
    count = len(originals)
    return Figures(
        num_originals=count,
        num_copies=count * len(copies),
        missed=missed,
        grouped=float((sizes * (sizes - 1)).sum() / (count * (count - 1))),
    )


def _signatures(modality: str, blobs: Sequence[bytes]) -> np.ndarray:
    decode, measure_signals = aspect(modality, "decode").decode, aspect(modality, "signals").measure
    column = aspect(modality, "nearness").COLUMN
    rows: list[Any] = [measure_signals(decode(blob, CONFIG), CONFIG)[column] for blob in blobs]
    return np.stack([np.frombuffer(row, np.uint8) for row in rows])


def pictures(images: Sequence[Image.Image]) -> tuple[list[bytes], dict[str, list[bytes]]]:
    """Pictures as PNG, and their copies."""

    def cropped(image: Image.Image) -> Image.Image:
        return image.crop((1, 1, image.width - 1, image.height - 1))

    kinds: dict[str, Callable[[Image.Image], Image.Image]] = {
        "JPEG q80": as_jpeg,
        "2x, bicubic": lambda image: image.resize((2 * image.width, 2 * image.height), Image.Resampling.BICUBIC),
        "2x, nearest": lambda image: image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST),
        "half": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
        "1 px off every side": cropped,
        "1 px off left and top": lambda image: image.crop((1, 1, image.width, image.height)),
        "1 px off, JPEG q80": lambda image: as_jpeg(cropped(image)),
    }
    unique = list({image.tobytes(): image for image in images}.values())
    return [_png(image) for image in unique], {kind: [_png(make(i)) for i in unique] for kind, make in kinds.items()}


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def emoji_pictures(count: int) -> list[Image.Image]:
    """Pictures of the demo."""
    chosen = [emoji.picture for emoji in choose(read_catalog(), count, seed=SEED) if emoji.picture is not None]
    return [aspect("image", "decode").decode(path.read_bytes(), CONFIG).rgb for path in chosen]


def tiles(folder: Path) -> Iterator[Image.Image]:
    """Squares of ``TILE`` pixels side by side from every picture in a folder."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            image = aspect("image", "decode").decode(path.read_bytes(), CONFIG).rgb
            for top in range(0, image.height - TILE + 1, TILE):
                for left in range(0, image.width - TILE + 1, TILE):
                    yield image.crop((left, top, left + TILE, top + TILE))


def clips(count: int) -> tuple[list[bytes], dict[str, list[bytes]]]:
    """Speech of the demo, and the same encoded again."""
    chosen = choose(read_catalog(), count, seed=SEED)
    voices = {emoji.names[LANGUAGES[number % 4]]: LANGUAGES[number % 4] for number, emoji in enumerate(chosen)}
    wavs = speak([Utterance(voice=voice, text=name) for name, voice in voices.items()])
    kinds: dict[str, tuple[int, str, str | None]] = {
        "Ogg Vorbis, 22,050 Hz": (22_050, "OGG", "VORBIS"), "Ogg Vorbis, 16,000 Hz": (16_000, "OGG", "VORBIS"),
        "MP3, 22,050 Hz": (22_050, "MP3", None), "MP3, 16,000 Hz": (16_000, "MP3", None),
        "FLAC, 44,100 Hz": (44_100, "FLAC", None), "FLAC, 8,000 Hz": (8_000, "FLAC", None),
        "Ogg Opus, 16,000 Hz": (16_000, "OGG", "OPUS"),
    }  # fmt: skip
    return wavs, {kind: [_encoded(wav, *how) for wav in wavs] for kind, how in kinds.items()}


def _encoded(wav: bytes, rate: int, form: str, subtype: str | None) -> bytes:
    samples, given = soundfile.read(io.BytesIO(wav), dtype="float32")
    file = io.BytesIO()
    soundfile.write(file, soxr.resample(samples, given, rate), rate, format=form, subtype=subtype)
    return file.getvalue()


def names(count: int, *, min_chars: int = 16) -> list[str]:
    """Names of emoji in every language that the package has, without skin tones."""
    spec = find_spec("emoji")
    assert spec is not None
    assert spec.origin is not None
    found: set[str] = set()
    for path in sorted((Path(spec.origin).parent / "unicode_codes").glob("emoji_*.json")):
        for character, name in json.loads(path.read_text(encoding="utf-8")).items():
            if not any("\U0001f3fb" <= code <= "\U0001f3ff" for code in character):
                found.add(name.strip(":").replace("_", " "))
    long = sorted(name for name in found if len(name) >= min_chars and " " in name)
    random.Random(SEED).shuffle(long)
    return long[:count]


def sentences(count: int) -> list[str]:
    """Three names of one language group after each other: about the length of a caption."""
    parts = names(3 * count)
    return [", ".join(parts[3 * index : 3 * index + 3]) + "." for index in range(count)]


def texts(originals: Sequence[str], *, has_words: bool) -> tuple[list[bytes], dict[str, list[bytes]]]:
    """Texts, and the same with small edits; words are only exchanged where there are enough of them."""
    rng = random.Random(SEED)

    def typo(text: str) -> str:
        place = rng.randrange(len(text) - 1)
        letter = rng.choice("aeiou")
        return rng.choice([text[:place] + letter + text[place + 1 :], text[:place] + text[place + 1 :]])

    def exchanged(text: str) -> str:
        words = text.split()
        words[rng.randrange(len(words))] = rng.choice(WORDS)
        return " ".join(words)

    def inserted(text: str) -> str:
        words = text.split()
        words.insert(rng.randrange(len(words) + 1), rng.choice(WORDS))
        return " ".join(words)

    kinds: dict[str, Callable[[str], str]] = {
        "upper case": str.upper, "punctuation": lambda text: f"{text.replace(' ', ', ', 1)}!", "typo": typo,
    }  # fmt: skip
    if has_words:
        kinds |= {"a word exchanged": exchanged, "a word inserted": inserted}
    return [text.encode() for text in originals], {
        kind: [edit(text).encode() for text in originals] for kind, edit in kinds.items()
    }


def _print_figures(name: str, modality: str, blobs: tuple[list[bytes], dict[str, list[bytes]]]) -> None:
    figures = measure(modality, *blobs)
    missed = ", ".join(f"{kind} {number}" for kind, number in figures.missed.items() if number) or "none"
    sys.stdout.write(
        f"| {name} | {figures.num_originals} | {figures.num_copies} | {100 * figures.found:.2f} % | {missed} "
        f"| {100 * figures.grouped:.3f} % |\n"
    )


if __name__ == "__main__":
    sys.stdout.write("| set | originals | copies | grouped | missed | unrelated pairs grouped |\n")
    sys.stdout.write("|---|---|---|---|---|---|\n")
    _print_figures("emoji of the demo", "image", pictures(emoji_pictures(700)))
    _print_figures("all emoji without skin tones", "image", pictures(emoji_pictures(4000)))
    _print_figures("noise fields", "image", pictures([noise_field(seed) for seed in range(1000)]))
    for argument in sys.argv[1:]:
        _print_figures("photographs in tiles", "image", pictures(list(tiles(Path(argument)))))
    _print_figures("speech of the demo", "audio", clips(400))
    _print_figures("names of at least 16 characters", "text", texts(names(2000), has_words=False))
    _print_figures("captions", "text", texts(sentences(1000), has_words=True))
