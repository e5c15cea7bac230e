"""Nearly equal samples on both sides of a split, found by comparing every pair: the proof of what ``near.py`` groups.

Where a release has more pairs than ``MAX_PAIRS``, samples of val and test are taken by the digest of their signatures
until they are used up, and each is compared with every sample of the other splits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from mm_assets.release.config import SPLITS, FreezeConfig
from mm_assets.release.dedup import Bools, Ints
from mm_assets.release.near import distinct
from mm_assets.release.signatures import NEAR, Signatures, read_signatures

#: Pairs of each modality that are compared at most.
MAX_PAIRS = 20_000_000
#: Pairs that are compared at a time.
CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossings:
    """Ids of samples near to one of another split, and by modality how many of how many signatures were compared."""

    ids: tuple[str, ...]
    compared: Mapping[str, tuple[int, int]]


def find_crossings(database: duckdb.DuckDBPyConnection, config: FreezeConfig) -> Crossings:
    """Compares selected samples of val and test with those of every other split; ``frozen`` says where each is."""
    rows = database.execute(
        """SELECT s.position, s.id, CASE WHEN f.selected THEN f.split END AS split
           FROM samples s LEFT JOIN frozen f USING (id, shard, row) ORDER BY s.position"""
    ).fetchnumpy()
    split = np.full(len(rows["id"]), -1, dtype=np.int64)
    for number, name in enumerate(SPLITS):
        split[np.asarray(rows["split"]) == name] = number
    crossing: set[int] = set()
    compared: dict[str, tuple[int, int]] = {}
    for modality in NEAR:
        found = read_signatures(database, modality, config)
        positions, done, total = _crossing(found, split)
        crossing |= set(positions.tolist())
        compared[modality] = (done, total)
    ids = np.asarray(rows["id"])
    return Crossings(ids=tuple(sorted({str(ids[position]) for position in crossing})), compared=compared)


def _crossing(found: Signatures, split: Ints) -> tuple[Ints, int, int]:
    """Positions that are near to another split, and how many signatures of val and test were compared of how many."""
    used = np.flatnonzero(split[found.position] >= 0)
    if len(used) == 0:
        return used, 0, 0
    first, number = distinct(found.data[used])
    sides = np.zeros(len(first), dtype=np.int64)
    np.bitwise_or.at(sides, number, np.left_shift(1, split[found.position[used]]))
    values = found.nearness.parse(found.data[used][first])
    torn = (sides & (sides - 1)) != 0
    asked = np.flatnonzero(sides > 1)
    most = max(1, MAX_PAIRS // len(first))
    for one in asked[:most].tolist():
        others = np.flatnonzero((sides & ~sides[one]) != 0)
        near = others[_are_near(values, one, others, found.nearness)]
        torn[near] = True
        torn[one] |= len(near) > 0
    return found.position[used[torn[number]]], min(most, len(asked)), len(asked)


def _are_near(values: npt.NDArray[Any], one: int, others: Ints, nearness: Any) -> Bools:
    parts: list[Bools] = []
    for start in range(0, len(others), CHUNK):
        right = values[others[start : start + CHUNK]]
        parts.append(nearness.are_near(np.broadcast_to(values[one], right.shape), right))
    return np.concatenate([np.zeros(0, np.bool_), *parts])
