"""Nearly equal samples on both sides of a split, found by comparing every pair: the proof of what ``near.py`` groups.

Where a release has more pairs than ``MAX_PAIRS``, samples of val and test are taken by the digest of their signatures
until they are used up, and each is compared with every sample of the other splits.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mm_assets.release.config import FreezeConfig
from mm_assets.release.dedup import Bools, Ints
from mm_assets.release.near import distinct
from mm_assets.release.rows import Rows
from mm_assets.release.signatures import NEAR, Signatures, read_signatures

#: Pairs of each modality that are compared at most.
MAX_PAIRS = 20_000_000
#: Pairs that are compared at a time.
CHUNK = 1 << 14


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossings:
    """Samples near to one of another split, and by modality how many of how many signatures were compared."""

    positions: Ints
    compared: Mapping[str, tuple[int, int]]


def find_crossings(rows: Rows, split: Ints, config: FreezeConfig) -> Crossings:
    """Compares selected samples of val and test with those of every other split.

    Args:
        rows: The release's.
        split: By position the split of a selected row, -1 of every other one.
        config: Which texts take part.
    """
    crossing = [np.zeros(0, dtype=np.int64)]
    compared: dict[str, tuple[int, int]] = {}
    for modality in NEAR:
        positions, done, total = _crossing(read_signatures(rows, modality, config), split)
        crossing.append(positions)
        compared[modality] = (done, total)
    return Crossings(positions=np.unique(np.concatenate(crossing)), compared=compared)


def _crossing(found: Signatures, split: Ints) -> tuple[Ints, int, int]:
    """Positions that are near to another split, and how many signatures of val and test were compared of how many."""
    used = np.flatnonzero(split[found.position] >= 0)
    if len(used) == 0:
        return used, 0, 0
    first, number = distinct(len(used), lambda rows: found.read(used[rows]))
    sides = np.zeros(len(first), dtype=np.int64)
    np.bitwise_or.at(sides, number, np.left_shift(1, split[found.position[used]]))
    torn = (sides & (sides - 1)) != 0
    asked = np.flatnonzero(sides > 1)
    most = max(1, MAX_PAIRS // len(first))
    torn |= _near_another(found, used[first], sides, asked[:most])
    return found.position[used[torn[number]]], min(most, len(asked)), len(asked)


def _near_another(found: Signatures, rows: Ints, sides: Ints, asked: Ints) -> Bools:
    """Which of ``rows`` are near to one of those ``asked`` that is on another side, these included."""
    nearness = found.nearness
    result = np.zeros(len(rows), dtype=np.bool_)
    ones = nearness.parse(found.read(rows[asked]))
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        values = nearness.parse(found.read(rows[part]))
        for one, number in zip(ones, asked.tolist(), strict=True):
            others = np.flatnonzero((sides[part] & ~sides[number]) != 0)
            near = others[nearness.are_near(np.broadcast_to(one, (len(others), *one.shape)), values[others])]
            result[start + near] = True
            result[number] |= len(near) > 0
    return result
