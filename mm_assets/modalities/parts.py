"""The parts of a sample in tables of tensors: which they are, in reading order, and how a value is taken apart.

The value of a modality that has several parts is that of its parts one after the other; the column ``parts`` says their
modalities and lengths. A plain sample has no parts, and a table of plain samples has no such column.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mm_assets.modalities.table import MODALITIES

PARTS = "parts"
#: Of one part; ``length`` is what the modality's ``make_tensor`` said.
PART_TYPE = pa.struct([("modality", pa.string()), ("length", pa.int32())])
#: Modality and length of the parts of a sample, in reading order.
Parts = tuple[tuple[str, int], ...]


def parse_parts(value: Sequence[dict[str, Any]] | None) -> Parts | None:
    """A value of the column ``parts``."""
    return None if value is None else tuple((part["modality"], part["length"]) for part in value)


def lengths_of(parts: Parts | None, modality: str) -> list[int]:
    """Lengths of the parts of one modality; none for a plain sample."""
    return [length for name, length in parts or () if name == modality]


def split(modality: str, tensor: npt.NDArray[Any], lengths: Sequence[int]) -> list[npt.NDArray[Any]]:
    """The parts of an array, which lie behind one another along its first axis."""
    if MODALITIES[modality].length_column is None:
        return np.split(tensor, len(lengths))
    return np.split(tensor, np.cumsum(lengths)[:-1])


def explode(column: pa.Array, lengths: Sequence[Sequence[int]]) -> pa.Array:
    """A column with a value per part.

    Args:
        column: A value per sample, none of them null.
        lengths: By sample those of its parts; empty for a plain sample.
    """
    values: list[Any] = []
    for value, own in zip(column, lengths, strict=True):
        whole = value.as_py()
        per_unit = len(whole) // max(sum(own), 1)
        bounds = np.cumsum([0, *own]) * per_unit if own else np.array([0, len(whole)])
        values += [whole[first:last] for first, last in zip(bounds[:-1], bounds[1:], strict=True)]
    return pa.array(values, column.type)
