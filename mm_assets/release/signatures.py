"""Signatures of the rows of a release, and which rows are nearly equal in one modality."""

from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from mm_assets.modalities.table import CAUSAL, MODALITIES, NAMES
from mm_assets.release.config import FreezeConfig
from mm_assets.release.dedup import Ints
from mm_assets.release.near import near_groups

#: Modalities whose blobs are compared by distance.
NEAR = tuple(name for name in NAMES if MODALITIES[name].has_nearness)


@dataclass(frozen=True, kw_only=True, slots=True)
class Signatures:
    """Signatures of one modality.

    ``position`` is ascending; ``data`` [rows, bytes] has the signatures of these positions: one for each part of the
    modality, in reading order.
    """

    position: Ints
    data: npt.NDArray[np.uint8]
    nearness: Any

    def values(self, rows: Ints) -> npt.NDArray[Any]:
        """Parsed signatures of rows of ``position``."""
        return self.nearness.parse(self.data[rows])

    def groups(self) -> Ints:
        """For every row of ``position`` the smallest position of its group of nearly equal ones."""
        return self.position[near_groups(self.data, self.nearness)] if len(self.position) else self.position

    def groups_of_samples(self, leader: Ints, num_rows: int) -> Ints:
        """By position the group of a sample: that of its part, and of several one that samples with equal lists share.

        Args:
            leader: The group of every row of ``position``.
            num_rows: How many positions there are; -1 where one has no signature.
        """
        groups = np.full(num_rows, -1, dtype=np.int64)
        groups[self.position] = leader
        places, first, counts = np.unique(self.position, return_index=True, return_counts=True)
        numbers: dict[tuple[int, ...], int] = {}
        for place, start, count in zip(places[counts > 1], first[counts > 1], counts[counts > 1], strict=True):
            own = tuple(leader[start : start + count].tolist())
            groups[place] = num_rows + numbers.setdefault(own, len(numbers))
        return groups

    def are_near(self, left: Ints, right: Ints) -> npt.NDArray[np.bool_]:
        """Whether pairs of positions with equally many parts are near in each of them."""
        first = np.searchsorted(self.position, left)
        other = np.searchsorted(self.position, right)
        counts = np.searchsorted(self.position, left, side="right") - first
        pair = np.repeat(np.arange(len(left)), counts)
        step = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts)
        near = self.nearness.are_near(self.values(first[pair] + step), self.values(other[pair] + step))
        result = np.ones(len(left), dtype=np.bool_)
        np.logical_and.at(result, pair, near)
        return result


def read_signatures(database: duckdb.DuckDBPyConnection, modality: str, config: FreezeConfig) -> Signatures:
    """The signatures of every row of ``samples`` that takes part in the search, one for each of its parts."""
    nearness = MODALITIES[modality].aspect("nearness")
    size = f"octet_length({nearness.COLUMN})"
    several = f"parts IS NOT NULL AND {size} > 0 AND {size} % {nearness.NUM_BYTES} = 0"
    where = f"({size} = {nearness.NUM_BYTES} OR ({several})) AND {_takes_part(modality, config)}"
    num_bytes = database.execute(f"SELECT coalesce(sum({size}), 0) FROM samples WHERE {where}").fetchall()[0][0]
    count = int(num_bytes) // nearness.NUM_BYTES
    position = np.empty(count, np.int64)
    data = np.empty((count, nearness.NUM_BYTES), np.uint8)
    found = database.sql(f"SELECT position, {nearness.COLUMN} FROM samples WHERE {where} ORDER BY position")
    start = 0
    for batch in found.to_arrow_reader(1 << 16):
        signatures = _bytes(batch.column(1)).reshape(-1, nearness.NUM_BYTES)
        stop = start + len(signatures)
        counts = _lengths(batch.column(1)) // nearness.NUM_BYTES
        position[start:stop] = np.repeat(batch.column(0).to_numpy(), counts)
        data[start:stop] = signatures
        start = stop
    return Signatures(position=position, data=data, nearness=nearness)


def _bounds(column: Any) -> npt.NDArray[Any]:
    width = np.int64 if str(column.type).startswith("large") else np.int32
    return np.frombuffer(column.buffers()[1], width)[column.offset : column.offset + len(column) + 1]


def _lengths(column: Any) -> npt.NDArray[Any]:
    return np.diff(_bounds(column))


def _bytes(column: Any) -> npt.NDArray[np.uint8]:
    bounds = _bounds(column)
    return np.frombuffer(column.buffers()[2], np.uint8)[int(bounds[0]) : int(bounds[-1])]


def _takes_part(modality: str, config: FreezeConfig) -> str:
    """Of texts the long ones and those without anything beside them; a copy of a long one may be a little shorter."""
    if modality not in CAUSAL:
        return "TRUE"
    alone = " AND ".join(f"NOT has_{name}" for name in NAMES if name != modality)
    return f"({modality}_chars * 4 >= {config.min_linked_text_chars} * 3 OR ({alone}))"
