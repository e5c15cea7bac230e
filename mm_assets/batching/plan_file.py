"""``plan.parquet``: written step by step, read by ranges of steps.

Row groups hold whole steps, and each says which, so a range of steps costs the bytes of its row groups.
"""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mm_assets.batching.rows import TOKEN_COLUMNS
from mm_assets.errors import StageError

PLAN = pa.schema(
    [
        *(pa.field(name, pa.int32(), nullable=False) for name in ("epoch", "step", "lane", "pack", "slot", "sample")),
        pa.field("id", pa.string(), nullable=False),
        *(pa.field(name, pa.int32(), nullable=False) for name in (*TOKEN_COLUMNS.values(), "start")),
    ]
)
#: Slots of a row group, at least; it ends with the step that reaches them.
GROUP_SLOTS = 1 << 16


class PlanWriter(AbstractContextManager["PlanWriter"]):
    """Writes a plan of whole steps, in order, to ``path``."""

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, PLAN, compression="zstd", compression_level=3, version="2.6")

    def write(self, table: pa.Table) -> None:
        """Adds the rows of some steps; a step must not be continued by the next call."""
        step = table["step"].to_numpy()
        first = 0
        while first < len(step):
            last = min(first + GROUP_SLOTS, len(step))
            last = int(np.searchsorted(step, step[last - 1], side="right"))
            self._writer.write_table(table.slice(first, last - first), row_group_size=last - first)
            first = last

    def __exit__(self, *_: object) -> None:
        self._writer.close()


class PlanFile:
    """A plan on disk.

    Args:
        path: ``plan.parquet``.

    Raises:
        StageError: it has other columns, no rows, or row groups that are not in the order of steps.
    """

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path)
        self.num_slots = self._file.metadata.num_rows
        found = self._file.schema_arrow
        if found.remove_metadata() != PLAN or not self.num_slots:
            raise StageError(
                f"batch plan: is unusable: expected rows of {', '.join(PLAN.names)}, got {self.num_slots} of "
                f"{', '.join(found.names)}. Compute the batch plan again."
            )
        steps = [self._steps_of(number) for number in range(self._file.num_row_groups)]
        if any(last >= first for (_, last), (first, _) in zip(steps, steps[1:], strict=False)):
            raise StageError("batch plan: its row groups are not in the order of steps. Compute the batch plan again.")
        self._first_steps = [first for first, _ in steps]
        self.num_steps = steps[-1][1] + 1

    def read(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """All rows in order, whole steps at a time."""
        for number in range(self._file.num_row_groups):
            yield self.read_group(number, columns)

    def group_of(self, step: int) -> int:
        """Number of the row group that would hold a step."""
        return max(0, bisect_right(self._first_steps, step) - 1)

    def read_group(self, number: int, columns: list[str] | None = None) -> pa.Table:
        """All rows of a row group."""
        return self._file.read_row_group(number, columns=columns, use_threads=False)

    def _steps_of(self, number: int) -> tuple[int, int]:
        group = self._file.metadata.row_group(number)
        statistics = group.column(PLAN.get_field_index("step")).statistics
        return int(statistics.min), int(statistics.max)
