"""The batch of a step and lane, as a function of the plan and the samples alone: whoever asks, and whenever.

Who asks for which step is ``dataset.py``'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mm_assets.batching.collate import NO_LABEL, Batch, Layout, Slot, collate
from mm_assets.batching.plan_file import PlanFile
from mm_assets.batching.rows import TOKEN_COLUMNS
from mm_assets.batching.samples import Reader

COLUMNS = ["step", "lane", "pack", "sample", "start", *TOKEN_COLUMNS.values()]
#: Row groups of the plan in memory: the one being followed, and the next that is read ahead.
HELD_GROUPS = 2

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepFacts:
    """What a plan says about one step, the same for every process.

    Attributes:
        step: Its number.
        num_samples: Samples of each lane.
        groups: Per sample, lane after lane, the number of the group of its source that it belongs to; a number of its
            own where it belongs to none.
    """

    step: int
    num_samples: list[int]
    groups: npt.NDArray[np.int64]


class PlanLoader:
    """Batches of a plan for some of its lanes.

    Args:
        plan: The plan.
        reader: Where the samples are.
        layout: How they become tokens; must be the plan's.
        class_ids: Class id by label; samples with another label, or none, get ``NO_LABEL``.
    """

    def __init__(self, plan: PlanFile, reader: Reader, layout: Layout, class_ids: Mapping[str, int]) -> None:
        self._plan = plan
        self._group = lru_cache(HELD_GROUPS)(self._read_group)
        self._reader = reader
        self._layout = layout
        self._class_ids = _classes_of(reader.samples["label"], class_ids)
        self._groups = _groups_of(reader.samples)
        self.num_steps = plan.num_steps

    def batch(self, step: int, lane: int) -> Batch:
        """The batch of one step and lane; without samples where the plan has none."""
        columns, first, last = self._step(step)
        rows = first + np.flatnonzero(columns["lane"][first:last] == lane)
        packs = groupby(rows.tolist(), key=lambda row: int(columns["pack"][row]))
        return collate([[self._slot(columns, row) for row in members] for _, members in packs], self._layout)

    def facts(self, step: int, num_lanes: int) -> StepFacts:
        """About all lanes of a step, without reading a sample."""
        columns, first, last = self._step(step)
        lanes = columns["lane"][first:last]
        return StepFacts(
            step=step,
            num_samples=np.bincount(lanes, minlength=num_lanes).tolist(),
            groups=self._groups[columns["sample"][first:last]],
        )

    def _step(self, step: int) -> tuple[dict[str, Ints], int, int]:
        """Columns of the row group that holds a step, and its first and last row but one in them."""
        columns = self._group(self._plan.group_of(step))
        first, last = np.searchsorted(columns["step"], [step, step + 1])
        return columns, int(first), int(last)

    def _read_group(self, number: int) -> dict[str, Ints]:
        table = self._plan.read_group(number, COLUMNS)
        return {name: table[name].to_numpy() for name in COLUMNS}

    def _slot(self, columns: Mapping[str, Ints], row: int) -> Slot:
        sample_row = int(columns["sample"][row])
        sample = self._reader.read([sample_row])[0]
        return Slot(
            id=sample.id,
            start=int(columns["start"][row]),
            num_tokens=tuple(int(columns[name][row]) for name in TOKEN_COLUMNS.values()),
            sample=sample if sample.tensors else None,
            label=int(self._class_ids[sample_row]),
        )


def _classes_of(labels: pa.ChunkedArray, class_ids: Mapping[str, int]) -> Ints:
    """The class id of every row, without an object per row."""
    encoded = labels.combine_chunks().dictionary_encode()
    ids = [class_ids.get(label, NO_LABEL) for label in encoded.dictionary.to_pylist()]
    rows = encoded.indices.fill_null(len(ids)).to_numpy(zero_copy_only=False)
    return np.array([*ids, NO_LABEL], np.int32)[rows]


def _groups_of(samples: pa.Table) -> npt.NDArray[np.int64]:
    """The number of every row's group."""
    source, group = (samples[name].combine_chunks().dictionary_encode().indices for name in ("source", "group"))
    own = np.arange(len(samples), dtype=np.int64)
    named = group.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    number = named * (len(source.unique()) + 1) + source.fill_null(-1).to_numpy(zero_copy_only=False)
    return np.where(named < 0, -1 - own, number)
