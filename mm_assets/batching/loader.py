"""Follows a plan: the batch of a step and lane is a function of the plan alone.

Order and tensors are the same for any number of reading threads and of processes that share the lanes; to resume is to
start at another step.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby

import numpy as np
import pyarrow as pa

from mm_assets.batching.collate import NO_LABEL, Batch, Layout, Slot, collate
from mm_assets.batching.rows import TOKEN_COLUMNS
from mm_assets.batching.samples import Reader


class PlanLoader:
    """Batches of a plan for some of its lanes.

    Args:
        plan: ``plan.parquet``.
        reader: Where the samples are.
        layout: How they become tokens; must be the plan's.
        class_ids: Class id by label; samples with another label, or none, get ``NO_LABEL``.
    """

    def __init__(self, plan: pa.Table, reader: Reader, layout: Layout, class_ids: Mapping[str, int]) -> None:
        self._columns = {name: plan[name].to_numpy(zero_copy_only=False) for name in plan.column_names if name != "id"}
        self._ids = plan["id"]
        self._reader = reader
        self._layout = layout
        self._class_ids = [class_ids.get(label, NO_LABEL) for label in reader.samples["label"].to_pylist()]
        self.num_steps = int(self._columns["step"].max()) + 1

    def batch(self, step: int, lane: int) -> Batch:
        """The batch of one step and lane; without samples where the plan has none."""
        first, last = np.searchsorted(self._columns["step"], [step, step + 1])
        rows = first + np.flatnonzero(self._columns["lane"][first:last] == lane)
        packs = groupby(rows.tolist(), key=lambda row: int(self._columns["pack"][row]))
        return collate([[self._slot(row) for row in members] for _, members in packs], self._layout)

    def num_active_lanes(self, step: int) -> int:
        """Lanes that have samples at ``step``, over all processes."""
        first, last = np.searchsorted(self._columns["step"], [step, step + 1])
        return len(np.unique(self._columns["lane"][first:last]))

    def follow(
        self, lanes: Sequence[int], *, first_step: int = 0, last_step: int | None = None, num_threads: int = 1
    ) -> Iterator[tuple[int, list[Batch]]]:
        """Steps from ``first_step`` up to and without ``last_step``, each with one batch per lane, read ahead.

        Args:
            lanes: The lanes of this process, in order.
            first_step: Where to start; the only state of a resumed loader.
            last_step: Where to stop; None follows the plan to its end.
            num_threads: Reading threads; 0 reads when asked. Changes the speed and nothing else.
        """
        steps = range(first_step, self.num_steps if last_step is None else last_step)
        if num_threads == 0:
            yield from ((step, [self.batch(step, lane) for lane in lanes]) for step in steps)
            return
        with ThreadPoolExecutor(num_threads) as pool:
            pending: deque[tuple[int, list[Future[Batch]]]] = deque()
            for step in steps:
                pending.append((step, [pool.submit(self.batch, step, lane) for lane in lanes]))
                if len(pending) > num_threads:
                    ready, futures = pending.popleft()
                    yield ready, [future.result() for future in futures]
            for ready, futures in pending:
                yield ready, [future.result() for future in futures]

    def _slot(self, row: int) -> Slot:
        columns = self._columns
        sample_row = int(columns["sample"][row])
        sample = self._reader.read([sample_row])[0]
        return Slot(
            id=sample.id,
            start=int(columns["start"][row]),
            num_tokens=tuple(int(columns[name][row]) for name in TOKEN_COLUMNS.values()),
            sample=sample if sample.tensors else None,
            label=self._class_ids[sample_row],
        )
