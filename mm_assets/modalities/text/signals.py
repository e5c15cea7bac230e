"""Signals of a text: its normalised form that duplicates share, a guess of its language, patterns of personal data."""

import re
import unicodedata
from typing import Protocol

import pyarrow as pa

from mm_assets.identity.canonical import digest_bytes
from mm_assets.modalities.text.language import guess_language
from mm_assets.modalities.text.minhash import minhash

COLUMNS = (
    ("text_chars", pa.int32()),
    ("text_bytes", pa.int32()),
    ("language_id", pa.string()),
    ("language_confidence", pa.float64()),
    ("has_email", pa.bool_()),
    ("has_phone", pa.bool_()),
    ("has_url", pa.bool_()),
    ("text_digest", pa.string()),
    ("text_minhash", pa.string()),
)
NUMBERS = ("text_chars",)
FLAGS = ("has_email", "has_phone", "has_url")

EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
URL = re.compile(r"(?:https?://|www\.)[^\s<>\"']{2,}", re.IGNORECASE)
PHONE = re.compile(r"(?<![\w.])(?:\+|00)?\d{1,4}(?:[ ()./-]{0,2}\d{2,4}){2,5}(?!\w|\.\d)")
DATE = re.compile(r"(?:\d{4}[./-]\d{1,2}[./-]\d{1,2}|\d{1,2}[./-]\d{1,2}[./-]\d{2,4})")
PHONE_DIGITS = range(7, 16)


class Thresholds(Protocol):
    """What the signals read of the configuration."""

    @property
    def min_language_confidence(self) -> float:
        """A language guess below it is left out."""
        ...


def measure(text: str, config: Thresholds) -> dict[str, object]:
    """The columns for one text."""
    normalised = normalise(text)
    language, confidence = guess_language(text, config.min_language_confidence)
    return {
        "text_chars": len(text),
        "text_bytes": len(text.encode("utf-8")),
        "language_id": language,
        "language_confidence": confidence,
        "has_email": has_email(text),
        "has_phone": has_phone(text),
        "has_url": has_url(text),
        "text_digest": digest_bytes(normalised.encode("utf-8")),
        "text_minhash": minhash(normalised),
    }


def normalise(text: str) -> str:
    """What two texts have in common that differ in form only: NFKC, case-folded, white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def has_email(text: str) -> bool:
    """Whether something looks like an e-mail address."""
    return EMAIL.search(text) is not None


def has_url(text: str) -> bool:
    """Whether something looks like a web address."""
    return URL.search(text) is not None


def has_phone(text: str) -> bool:
    """Whether something looks like a telephone number: 7 to 15 digits (ITU-T E.164) in groups, and not a date."""
    for match in PHONE.finditer(text):
        found = match.group()
        digits = sum(character.isdigit() for character in found)
        if digits in PHONE_DIGITS and not DATE.fullmatch(found.strip()):
            return True
    return False
