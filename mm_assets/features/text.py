"""Texts: byte-level tokens, the normalised form that duplicates share, and patterns of personal data.

A vocabulary of bytes needs no tokenizer file, covers every language and never changes: 0 PAD, 1 BOS, 2 EOS, 3 MASK,
and byte b is token b + 4.
"""

import re
import unicodedata

from mm_assets.features.blobs import BlobRejectedError
from mm_assets.features.config import FeaturesConfig

PAD, BOS, EOS, MASK = 0, 1, 2, 3
BYTE_OFFSET = 4
VOCAB_SIZE = 260

EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
URL = re.compile(r"(?:https?://|www\.)[^\s<>\"']{2,}", re.IGNORECASE)
PHONE = re.compile(r"(?<![\w.])(?:\+|00)?\d{1,4}(?:[ ()./-]{0,2}\d{2,4}){2,5}(?!\w|\.\d)")
DATE = re.compile(r"(?:\d{4}[./-]\d{1,2}[./-]\d{1,2}|\d{1,2}[./-]\d{1,2}[./-]\d{2,4})")
PHONE_DIGITS = range(7, 16)


def decode_text(data: bytes, config: FeaturesConfig) -> str:
    """Strict UTF-8; a leading byte order mark is dropped.

    Raises:
        BlobRejectedError: ``text_too_large`` or ``text_not_utf8``.
    """
    if len(data) > config.max_text_bytes:
        raise BlobRejectedError("text_too_large", f"expected at most {config.max_text_bytes} bytes, got {len(data)}")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise BlobRejectedError("text_not_utf8", f"byte {error.start}: {error.reason}") from error


def token_ids(text: str, max_tokens: int) -> list[int]:
    """BOS, one token per UTF-8 byte, EOS; cut at ``max_tokens``, so that a cut text has no EOS."""
    return [BOS, *(byte + BYTE_OFFSET for byte in text.encode("utf-8")), EOS][:max_tokens]


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
