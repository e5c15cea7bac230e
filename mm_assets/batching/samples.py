"""Samples as tensors: the rows of a dataset release, read from mapped Arrow files.

Every file is fetched by digest and verified once; after that a row is read without copying the rest of its file.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mm_assets.batching.plan import read_samples
from mm_assets.errors import StageError
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store
from mm_assets.store.tables import map_arrow

COLUMNS = ["id", "release", "shard", "row", "split", "selected", "label", "text_tokens", "audio_frames", "has_image"]


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


class ReleaseReader:
    """Reads samples of a dataset release by their row number in ``samples.parquet``.

    Files are fetched to ``cache_dir`` when a row of them is first read; ``fetch_all`` does it ahead, after which no
    network is needed.
    """

    def __init__(self, store: Store, release: Manifest, cache_dir: Path) -> None:
        self._store = store
        self._cache_dir = cache_dir
        self._release = release
        self._files: dict[tuple[str, str], TensorFile] = {}

    @cached_property
    def samples(self) -> pa.Table:
        """The columns ``COLUMNS`` of ``samples.parquet``, in file order."""
        return read_samples(self._store, self._release, self._cache_dir, COLUMNS)

    @cached_property
    def digests(self) -> dict[tuple[str, str], str]:
        """Digest of ``tensors.arrow`` by (release, shard), for this release's shards and its parents'."""
        data = json.loads(self._store.get_bytes(self._release.output("shards.json").digest))
        return {(shard["release"], shard["shard"]): shard["tensors"] for shard in data["shards"]}

    def read(self, rows: Sequence[int]) -> list[Sample]:
        """The samples in those rows of ``samples.parquet``, in that order.

        Raises:
            StageError: a shard's row holds another sample than the release says.
        """
        return [self._read(int(row)) for row in rows]

    def _read(self, row: int) -> Sample:
        columns = self.samples
        key = (columns["release"][row].as_py(), columns["shard"][row].as_py())
        sample = self.file(key).read(columns["row"][row].as_py())
        if sample.id != columns["id"][row].as_py():
            raise StageError(
                f"features {key[0]}/{key[1]}: row {columns['row'][row]} holds another sample: expected "
                f"{columns['id'][row]}, got {sample.id}. Materialize the dataset release again."
            )
        return sample

    def file(self, key: tuple[str, str]) -> TensorFile:
        """The mapped tensors of the shard ``key`` = (release, shard), fetched if need be."""
        if key not in self._files:
            self._files[key] = TensorFile(self._store.fetch(self.digests[key], self._cache_dir))
        return self._files[key]
