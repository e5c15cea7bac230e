"""What a text says about itself before it is used: that it is UTF-8."""

from mm_assets.modalities.reasons import Refusal


def inspect_header(data: bytes, limits: object) -> str | Refusal:
    """``txt``, or why the bytes are refused."""
    del limits
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return Refusal("text_not_utf8", f"text is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}")
    return "txt"
