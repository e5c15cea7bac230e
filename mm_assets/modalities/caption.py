"""Signals about two modalities of one sample: whether its text could be what is spoken in its clip.

Works on the columns that the modalities' own ``signals`` gave, so that nothing is decoded or measured twice.
"""

from collections.abc import Mapping

import pyarrow as pa

COLUMNS = (("caption_chars_per_second", pa.float64()),)
NUMBERS = ("caption_chars_per_second",)
DECIMALS = 6


def measure(signals: Mapping[str, object]) -> dict[str, object]:
    """The columns for one sample, from the columns of its text and its clip.

    ``caption_chars_per_second`` is the text's characters per second of the clip, silence included; None without one
    of the two. People speak 5 to 8 syllables a second (Pellegrino et al. 2011, "A cross-language perspective on speech
    information rate"): 10 to 25 characters of an alphabet, 5 to 8 of a script that writes syllables. Above 40 no one
    can have read the text aloud; far below 1 most of it was not spoken, or the clip holds something else.
    """
    chars, seconds = signals.get("text_chars"), signals.get("audio_seconds")
    if not isinstance(chars, int) or not isinstance(seconds, float) or seconds <= 0:
        return {"caption_chars_per_second": None}
    return {"caption_chars_per_second": round(chars / seconds, DECIMALS)}
