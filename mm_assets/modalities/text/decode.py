"""Texts: strict UTF-8."""

from typing import Protocol

from mm_assets.modalities.reasons import BlobRejectedError, Refusal
from mm_assets.modalities.text.header import inspect_header


class Limits(Protocol):
    """What decoding a text reads of the configuration."""

    @property
    def max_text_bytes(self) -> int:
        """UTF-8 bytes of one text."""
        ...


def decode(data: bytes, config: Limits) -> str:
    """The text; a leading byte order mark is dropped.

    Raises:
        BlobRejectedError: ``too_large`` or ``text_not_utf8``.
    """
    if len(data) > config.max_text_bytes:
        detail = f"text has {len(data)} bytes; {config.max_text_bytes} are allowed"
        raise BlobRejectedError(Refusal("too_large", detail))
    found = inspect_header(data, config)
    if isinstance(found, Refusal):
        raise BlobRejectedError(found)
    return data.decode("utf-8").removeprefix("\ufeff")
