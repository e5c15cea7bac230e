"""Signatures of the rows of a release, and which samples are nearly equal in one modality."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mm_assets.modalities.table import CAUSAL, MODALITIES, NAMES
from mm_assets.release.config import FreezeConfig
from mm_assets.release.dedup import Ints
from mm_assets.release.near import Read
from mm_assets.release.rows import Rows
from mm_assets.release.signature_files import NEAR

__all__ = ["NEAR", "Signatures", "read_signatures"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Signatures:
    """Signatures of one modality.

    ``position`` is ascending and names the sample of each: one for each part of the modality, in reading order.
    ``read`` has their bytes [numbers, bytes], by their number in ``position``.
    """

    position: Ints
    read: Read
    nearness: Any

    def values(self, numbers: Ints) -> npt.NDArray[Any]:
        """Parsed signatures, by their number in ``position``."""
        return self.nearness.parse(self.read(numbers))

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

    def __len__(self) -> int:
        return len(self.position)


def read_signatures(rows: Rows, modality: str, config: FreezeConfig) -> Signatures:
    """The signatures of every row that was read of a shard and takes part in the search, one for each of its parts."""
    position = rows.signatures.positions(modality)
    taken = np.arange(len(position), dtype=np.int64)
    if modality in CAUSAL:
        found = rows.database.execute(f"SELECT {_takes_part(modality, config)} AS part FROM samples").fetchnumpy()
        taken = np.flatnonzero(np.ma.filled(found["part"], False)[position]).astype(np.int64)
    nearness, path = MODALITIES[modality].aspect("nearness"), rows.signatures.path(modality)

    def read(numbers: Ints) -> npt.NDArray[np.uint8]:
        if len(numbers) == 0:
            return np.zeros((0, nearness.NUM_BYTES), np.uint8)
        # Mapped anew for every call: pages that were read do not stay.
        mapped = np.memmap(path, np.uint8, "r").reshape(-1, nearness.NUM_BYTES)
        return np.asarray(mapped[taken[numbers]])

    return Signatures(position=position[taken], read=read, nearness=nearness)


def _takes_part(modality: str, config: FreezeConfig) -> str:
    """Of texts the long ones and those without anything beside them; a copy of a long one may be a little shorter."""
    alone = " AND ".join(f"NOT has_{name}" for name in NAMES if name != modality)
    return f"({modality}_chars * 4 >= {config.min_linked_text_chars} * 3 OR ({alone}))"
