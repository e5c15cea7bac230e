"""Samples as tensors: the rows of a dataset release, read from mapped Arrow files.

Every file is fetched by digest and verified once; after that a row is read without copying the rest of its file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt
import pyarrow as pa

from mm_assets.batching.rows import LENGTH_COLUMNS, read_samples
from mm_assets.errors import StageError
from mm_assets.modalities.parts import PARTS, Parts, parse_parts
from mm_assets.modalities.table import NAMES, aspect
from mm_assets.release.shards import parse_shards
from mm_assets.store.job import Job
from mm_assets.store.tables import map_arrow

COLUMNS = ["id", "shard", "row", "split", "selected", "label", *LENGTH_COLUMNS.values()]

#: What a loader needs besides: which samples belong together.
LOADER_COLUMNS = [*COLUMNS, "source", "group"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One training item: by modality the array that its ``column`` describes; an absent modality has none.

    ``parts`` says what the arrays consist of, in reading order; None for a plain sample.
    """

    id: str
    tensors: Mapping[str, npt.NDArray[Any]]
    parts: Parts | None = None


class TensorFile:
    """One shard's ``tensors.arrow``, mapped."""

    def __init__(self, path: Path) -> None:
        self._table: pa.Table = map_arrow(path)
        self._has_parts = PARTS in self._table.column_names
        self.shape = {name.decode(): int(value) for name, value in (self._table.schema.metadata or {}).items()}

    def read(self, row: int) -> Sample:
        """The sample in that row."""
        # A file that was made before a modality was known lacks its column.
        values = {name: self._table[name][row] for name in NAMES if name in self._table.column_names}
        return Sample(
            id=self._table["id"][row].as_py(),
            parts=parse_parts(self._table[PARTS][row].as_py()) if self._has_parts else None,
            tensors={
                name: aspect(name, "column").read(value, self.shape) for name, value in values.items() if value.is_valid
            },
        )


class Reader(Protocol):
    """What a loader needs: narrow columns of all samples, and tensors of some."""

    @property
    def samples(self) -> pa.Table:
        """Columns of ``samples.parquet``, in file order: ``LOADER_COLUMNS`` for a loader."""
        ...

    def read(self, rows: Sequence[int]) -> list[Sample]:
        """The samples in those rows of ``samples.parquet``, in that order."""
        ...


class LocalReader:
    """Reads samples by their row number in ``samples.parquet`` from files that ``locate`` finds by shard number."""

    def __init__(self, samples: pa.Table, locate: Callable[[int], Path]) -> None:
        self._ids = samples["id"].combine_chunks()
        self._shards, self._rows = (samples[name].to_numpy() for name in ("shard", "row"))
        self.locate = locate
        self._files: dict[int, TensorFile] = {}
        self.samples = samples

    def read(self, rows: Sequence[int]) -> list[Sample]:
        """The samples in those rows, in that order.

        Raises:
            StageError: a shard's row holds another sample than the release says.
        """
        return [self._read(int(row)) for row in rows]

    def file(self, shard: int) -> TensorFile:
        """The mapped tensors of a shard."""
        if shard not in self._files:
            self._files[shard] = TensorFile(self.locate(shard))
        return self._files[shard]

    def _read(self, row: int) -> Sample:
        shard, place = int(self._shards[row]), int(self._rows[row])
        sample = self.file(shard).read(place)
        if sample.id != self._ids[row].as_py():
            raise StageError(
                f"tensors of shard {shard}: row {place} holds another sample: expected {self._ids[row].as_py()}, "
                f"got {sample.id}. Materialize the dataset release again."
            )
        return sample


class ReleaseReader:
    """Reads samples of a dataset release by their row number in ``samples.parquet``.

    A shard's file is fetched and verified when one of its rows is first read.
    """

    def __init__(self, job: Job) -> None:
        digests = tensor_digests(job)
        self.samples = read_samples(job.fetch("dataset_release", "samples.parquet"), COLUMNS)
        self._reader = LocalReader(self.samples, lambda shard: job.store.fetch(digests[shard], job.workdir / "inputs"))

    def read(self, rows: Sequence[int]) -> list[Sample]:
        """The samples in those rows, in that order.

        Raises:
            StageError: a shard's row holds another sample than the release says.
        """
        return self._reader.read(rows)


def tensor_digests(job: Job) -> list[str]:
    """Digest of ``tensors.arrow`` by shard number, for a dataset release's own shards and its parents'."""
    _, shards = parse_shards(job.read("dataset_release", "shards.json"), "dataset_release")
    return [shard.tensors for shard in shards]
