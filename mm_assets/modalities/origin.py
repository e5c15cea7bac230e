"""Signals about where a modality of a sample comes from that has two places: its own file, or a track of another.

A file of its own always wins.
"""

from collections.abc import Collection

import pyarrow as pa

from mm_assets.modalities.table import HELD_BY

COLUMNS = tuple((f"{name}_origin", pa.string()) for name, holders in HELD_BY.items() if holders)
FILE = "file"


def measure(delivered: Collection[str], present: Collection[str]) -> dict[str, object]:
    """The columns for one sample: ``file``, the modality that holds it, or None where the sample has none.

    Args:
        delivered: Modalities with a blob of their own.
        present: Modalities that it has.
    """
    return {
        f"{name}_origin": _origin(name, holders, delivered) if name in present else None
        for name, holders in HELD_BY.items()
        if holders
    }


def _origin(name: str, holders: tuple[str, ...], delivered: Collection[str]) -> str:
    return FILE if name in delivered else next(holder for holder in holders if holder in delivered)
