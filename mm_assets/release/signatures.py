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

    ``position`` is ascending; ``data`` [rows, bytes] has the signatures of these positions.
    """

    position: Ints
    data: npt.NDArray[np.uint8]
    nearness: Any

    def values(self, positions: Ints) -> npt.NDArray[Any]:
        """Parsed signatures of positions, each of which has one."""
        return self.nearness.parse(self.data[np.searchsorted(self.position, positions)])

    def groups(self) -> Ints:
        """For every row of ``position`` the smallest position of its group of nearly equal ones."""
        return self.position[near_groups(self.data, self.nearness)] if len(self.position) else self.position


def read_signatures(database: duckdb.DuckDBPyConnection, modality: str, config: FreezeConfig) -> Signatures:
    """The signatures of every row of ``samples`` that takes part in the search."""
    nearness = MODALITIES[modality].aspect("nearness")
    where = f"octet_length({nearness.COLUMN}) = {nearness.NUM_BYTES} AND {_takes_part(modality, config)}"
    (count,) = database.execute(f"SELECT count(*) FROM samples WHERE {where}").fetchall()[0]
    position = np.empty(count, np.int64)
    data = np.empty((count, nearness.NUM_BYTES), np.uint8)
    found = database.sql(f"SELECT position, {nearness.COLUMN} FROM samples WHERE {where} ORDER BY position")
    start = 0
    for batch in found.to_arrow_reader(1 << 16):
        stop = start + batch.num_rows
        position[start:stop] = batch.column(0).to_numpy()
        data[start:stop] = _bytes(batch.column(1)).reshape(-1, nearness.NUM_BYTES)
        start = stop
    return Signatures(position=position, data=data, nearness=nearness)


def _bytes(column: Any) -> npt.NDArray[np.uint8]:
    _, offsets, data = column.buffers()
    width = np.int64 if str(column.type).startswith("large") else np.int32
    bounds = np.frombuffer(offsets, width)[column.offset : column.offset + len(column) + 1]
    return np.frombuffer(data, np.uint8)[int(bounds[0]) : int(bounds[-1])]


def _takes_part(modality: str, config: FreezeConfig) -> str:
    """Of texts the long ones and those without anything beside them; a copy of a long one may be a little shorter."""
    if modality not in CAUSAL:
        return "TRUE"
    alone = " AND ".join(f"NOT has_{name}" for name in NAMES if name != modality)
    return f"({modality}_chars * 4 >= {config.min_linked_text_chars} * 3 OR ({alone}))"
