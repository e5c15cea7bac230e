"""Signals of a text: its normalised form that duplicates share, a guess of its language, patterns of personal data.

All are about the text as it was decoded, before any redaction; none holds a part of it.
"""

import re
import unicodedata
from typing import Protocol

import pyarrow as pa

from mm_assets.identity.canonical import digest_bytes
from mm_assets.modalities.text.language import guess_language
from mm_assets.modalities.text.personal_data import VERSIONS, find, redact
from mm_assets.modalities.text.repetition import repetition
from mm_assets.modalities.text.signature import signature

COLUMNS = (
    ("text_chars", pa.int32()),
    ("text_bytes", pa.int32()),
    ("language_id", pa.string()),
    ("language_confidence", pa.float64()),
    ("text_repetition", pa.float64()),
    *((f"has_{kind}", pa.bool_()) for kind in VERSIONS),
    ("has_url", pa.bool_()),
    ("num_redacted", pa.int32()),
    ("text_decode_digest", pa.string()),
    ("text_digest", pa.string()),
    ("text_signature", pa.binary()),
)
NUMBERS = ("text_chars", "text_repetition")
FLAGS = (*(f"has_{kind}" for kind in VERSIONS), "has_url")
#: Of several texts: their characters together, the most repetitive one, the language of the first one that has a guess.
COMBINED = {"text_repetition": "max", "language_confidence": "first"}

URL = re.compile(r"(?:https?://|www\.)[^\s<>\"']{2,}", re.IGNORECASE)


class Thresholds(Protocol):
    """What the signals read of the configuration."""

    @property
    def min_language_confidence(self) -> float:
        """A language guess below it is left out."""
        ...

    @property
    def redactions(self) -> tuple[str, ...]:
        """Kinds of personal data that are replaced, with their versions."""
        ...


def measure(text: str, config: Thresholds) -> dict[str, object]:
    """The columns for one text."""
    normalised = normalise(text)
    found = find(text)
    language, confidence = guess_language(text, config.min_language_confidence)
    return {
        "text_chars": len(text),
        "text_bytes": len(text.encode("utf-8")),
        "language_id": language,
        "language_confidence": confidence,
        "text_repetition": repetition(normalised),
        **{f"has_{kind}": bool(spans) for kind, spans in found.items()},
        "has_url": has_url(text),
        "num_redacted": redact(text, config.redactions)[1] if config.redactions else 0,
        "text_decode_digest": digest_bytes(text.encode("utf-8")),
        "text_digest": digest_bytes(normalised.encode("utf-8")),
        "text_signature": signature(text),
    }


def normalise(text: str) -> str:
    """What two texts have in common that differ in form only: NFKC, case-folded, white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def has_url(text: str) -> bool:
    """Whether something looks like a web address."""
    return URL.search(text) is not None
