"""A toy file: the letters TOY1, then one byte per value."""

from mm_assets.modalities.reasons import Refusal

MAGIC = b"TOY1"
MAX_VALUES = 64


def inspect_header(data: bytes, limits: object) -> str | Refusal:
    """``toy``, or why the bytes are refused."""
    del limits
    if not data.startswith(MAGIC):
        return Refusal("unsupported_format", "depth is not a toy file")
    if len(data) == len(MAGIC):
        return Refusal("no_content", "toy declares no values")
    if len(data) > len(MAGIC) + MAX_VALUES:
        return Refusal("too_large", f"toy has {len(data) - len(MAGIC)} values; {MAX_VALUES} are allowed")
    return "toy"
