"""Samples that are a range of time of a video: columns ``start_s`` and ``end_s``, in seconds from its beginning.

They mean this only where a sample has such a blob; elsewhere they are metadata like any other column.
"""

import math
from collections.abc import Iterable, Mapping

from mm_assets.drops.samples import TimeRange
from mm_assets.modalities.reasons import Refusal
from mm_assets.modalities.table import MODALITIES

START, END = "start_s", "end_s"
COLUMNS = (START, END)
MICROSECONDS = 1_000_000
#: No video is a year long; a larger number is no time.
MAX_SECONDS = 366 * 86_400


def ranged(modalities: Iterable[str]) -> str | None:
    """The modality among these of which a sample may be a range of time."""
    return next((name for name in modalities if MODALITIES[name].has_time_ranges), None)


def parse_time_range(columns: Mapping[str, object], num_blobs: int) -> TimeRange | None | Refusal:
    """The range of time that the columns name, None if they name none, or why it is none.

    Args:
        columns: Of the sample.
        num_blobs: How many blobs it has that could be meant.
    """
    start, end = (_microseconds(name, columns.get(name)) for name in COLUMNS)
    if isinstance(start, Refusal):
        return start
    if isinstance(end, Refusal):
        return end
    if start is None and end is None:
        return None
    if num_blobs > 1:
        return Refusal("bad_time_range", f"sample has {num_blobs} videos; {START} and {END} are about one")
    if end is not None and end <= (start or 0):
        asked = f"{(start or 0) / MICROSECONDS:g} s to {end / MICROSECONDS:g} s"
        return Refusal("bad_time_range", f"time range from {asked} has no length: {END} must be greater than {START}")
    return start, end


def _microseconds(name: str, value: object) -> int | None | Refusal:
    if value is None or value == "":
        return None
    try:
        seconds = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds <= MAX_SECONDS:
        return Refusal("bad_time_range", f"{name} is {str(value)[:40]!r}; seconds from 0 on are expected")
    return round(seconds * MICROSECONDS)
