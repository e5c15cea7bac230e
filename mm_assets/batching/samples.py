"""Samples as tensors: the rows of a dataset release, read from mapped Arrow files.

Every file is fetched by digest and verified once; after that a row is read without copying the rest of its file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mm_assets.errors import StageError
from mm_assets.release.shards import parse_shards
from mm_assets.store.job import Job
from mm_assets.store.tables import map_arrow, read_parquet

COLUMNS = ["id", "shard", "row", "split", "selected", "label", "text_tokens", "audio_frames", "has_image"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One training item as tensors; an absent modality is None.

    ``text_T`` int32 token ids, ``image_HWC`` uint8, ``audio_FM`` float32 log-mel frames.
    """

    id: str
    text_T: npt.NDArray[np.int32] | None
    image_HWC: npt.NDArray[np.uint8] | None
    audio_FM: npt.NDArray[np.float32] | None


class TensorFile:
    """One shard's ``tensors.arrow``, mapped."""

    def __init__(self, path: Path) -> None:
        self._table: pa.Table = map_arrow(path)
        metadata = self._table.schema.metadata or {}
        self.image_size = int(metadata[b"image_size"])
        self.num_mels = int(metadata[b"num_mels"])

    def read(self, row: int) -> Sample:
        """The sample in that row."""
        values = {name: self._table[name][row] for name in ("text", "image", "audio")}
        text, image, audio = (values[name] if values[name].is_valid else None for name in ("text", "image", "audio"))
        size = self.image_size
        return Sample(
            id=self._table["id"][row].as_py(),
            text_T=None if text is None else text.values.to_numpy(zero_copy_only=False).astype(np.int32),
            image_HWC=None if image is None else np.frombuffer(image.as_buffer(), np.uint8).reshape(size, size, 3),
            audio_FM=None
            if audio is None
            else np.frombuffer(audio.as_buffer(), "<f4").reshape(-1, self.num_mels).astype(np.float32, copy=False),
        )


class Reader(Protocol):
    """What a loader needs: narrow columns of all samples, and tensors of some."""

    @property
    def samples(self) -> pa.Table:
        """The columns ``COLUMNS`` of ``samples.parquet``, in file order."""
        ...

    def read(self, rows: Sequence[int]) -> list[Sample]:
        """The samples in those rows of ``samples.parquet``, in that order."""
        ...


class LocalReader:
    """Reads samples by their row number in ``samples.parquet`` from files that ``locate`` finds by shard number."""

    def __init__(self, samples: pa.Table, locate: Callable[[int], Path]) -> None:
        self._columns = {name: samples[name].to_pylist() for name in ("id", "shard", "row")}
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
        columns = self._columns
        shard = columns["shard"][row]
        sample = self.file(shard).read(columns["row"][row])
        if sample.id != columns["id"][row]:
            raise StageError(
                f"tensors of shard {shard}: row {columns['row'][row]} holds another sample: expected "
                f"{columns['id'][row]}, got {sample.id}. Materialize the dataset release again."
            )
        return sample


class ReleaseReader:
    """Reads samples of a dataset release by their row number in ``samples.parquet``.

    A shard's file is fetched and verified when one of its rows is first read.
    """

    def __init__(self, job: Job) -> None:
        digests = tensor_digests(job)
        self.samples = read_parquet(job.fetch("dataset_release", "samples.parquet"), COLUMNS)
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
