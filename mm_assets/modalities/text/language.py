"""A guess which language a text is in: small, deterministic, without a downloaded model.

Non-Latin scripts are told apart by the script of their letters. Latin-script languages are scored by frequent words,
letter groups and special letters of ``language_profiles``, which was written by hand. It knows the languages listed
there and nothing else: Serbian comes out as Russian, Danish as one of its neighbours or as no guess. Confidence is
the winner's lead over the runner-up, not a calibrated probability; short names often carry too little to tell. Use it
to find texts filed under a wrong language, not to label a corpus.
"""

import unicodedata
from collections import Counter
from functools import cache

from mm_assets.modalities.text.language_profiles import GROUPS, LETTERS, SCRIPT_LETTERS, SCRIPTS, WORDS

WORD_WEIGHT, GROUP_WEIGHT, LETTER_WEIGHT = 3.0, 1.0, 1.5
MAX_CHARS = 2_000
DECIMALS = 6


def guess_language(text: str, min_confidence: float) -> tuple[str | None, float | None]:
    """Language code and confidence in [0, 1]; both None where the confidence is below ``min_confidence``.

    Source: the frequent-word and n-gram methods of Grefenstette 1995 and Cavnar and Trenkle 1994, reduced to lists.
    """
    start = unicodedata.normalize("NFC", text[:MAX_CHARS]).casefold()
    scripts = Counter(_script(character) for character in start if character.isalpha())
    if not scripts:
        return None, None
    name, count = max(scripts.items(), key=lambda item: (item[1], item[0]))
    language, confidence = (
        _guess_latin(start) if name == "LATIN" else _guess_script(start, name, count / scripts.total(), scripts)
    )
    confidence = round(confidence, DECIMALS)
    return (language, confidence) if language and confidence >= min_confidence else (None, None)


def _guess_script(text: str, name: str, share: float, scripts: Counter[str]) -> tuple[str | None, float]:
    japanese = scripts["HIRAGANA"] + scripts["KATAKANA"]
    if name in ("CJK", "HIRAGANA", "KATAKANA") and japanese:
        return "ja", (scripts["CJK"] + japanese) / scripts.total()
    for language, letters in SCRIPT_LETTERS.get(name, {}).items():
        if any(letter in text for letter in letters):
            return language, share
    return SCRIPTS.get(name), share


def _guess_latin(text: str) -> tuple[str | None, float]:
    words = "".join(character if character.isalpha() or character == "'" else " " for character in text).split()
    joined = "_" + "_".join(words) + "_"
    scores = {language: _score(language, words, joined) for language in WORDS}
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    (best, first), (_, second) = ranked[0], ranked[1]
    return (best, (first - second) / (first + 1.0)) if first else (None, 0.0)


def _score(language: str, words: list[str], joined: str) -> float:
    known = sum(word in _words(language) for word in words)
    groups = sum(joined.count(group) for group in GROUPS[language].split())
    letters = sum(joined.count(letter) for letter in LETTERS.get(language, ""))
    return WORD_WEIGHT * known + GROUP_WEIGHT * groups + LETTER_WEIGHT * letters


@cache
def _words(language: str) -> frozenset[str]:
    return frozenset(WORDS[language].split())


@cache
def _script(character: str) -> str:
    name = unicodedata.name(character, "UNKNOWN")
    return name.split(" ", 1)[0].split("-", 1)[0]
