"""Signatures of a release in flat files: a row of bytes per signature, and the position of its sample.

They are the widest of the narrow columns. A file is read where it is needed and is never held in memory.
"""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.modalities.parts import PARTS
from mm_assets.modalities.table import MODALITIES, NAMES

#: Modalities whose blobs are compared by distance.
NEAR = tuple(name for name in NAMES if MODALITIES[name].has_nearness)
SIGNATURE_COLUMNS = tuple(f"{name}_signature" for name in NEAR)

Ints = npt.NDArray[np.int64]


class SignatureFiles:
    """The files of one release, below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self._folder

    def path(self, modality: str) -> Path:
        """Where the signatures of a modality are."""
        return self._folder / f"{modality}.bytes"

    def positions(self, modality: str) -> Ints:
        """The sample of every signature, ascending: one for each part of the modality, in reading order."""
        return np.fromfile(self._folder / f"{modality}.positions", np.int64)

    @contextmanager
    def writer(self) -> Generator["SignatureWriter"]:
        """Opens the files for writing."""
        self._folder.mkdir()
        with ExitStack() as stack:
            yield SignatureWriter(
                {
                    name: (
                        stack.enter_context(self.path(name).open("wb")),
                        stack.enter_context((self._folder / f"{name}.positions").open("wb")),
                    )
                    for name in NEAR
                }
            )


class SignatureWriter:
    """Adds rows to the files in the order of their positions."""

    def __init__(self, files: dict[str, tuple[IO[bytes], IO[bytes]]]) -> None:
        self._files = files

    def append(self, table: pa.Table, first: int) -> None:
        """Adds the signatures of the rows of ``table``, the first of which is at position ``first``."""
        has_parts = table[PARTS].is_valid().to_numpy()
        for name, (data, positions) in self._files.items():
            nearness = MODALITIES[name].aspect("nearness")
            column = table[nearness.COLUMN]
            size = pc.binary_length(column).fill_null(0).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
            usable = (size == nearness.NUM_BYTES) | (has_parts & (size > 0) & (size % nearness.NUM_BYTES == 0))
            rows = np.flatnonzero(usable).astype(np.int64)
            positions.write(np.repeat(rows + first, size[rows] // nearness.NUM_BYTES).tobytes())
            for chunk in column.filter(pa.array(usable)).chunks:
                data.write(_bytes(chunk))


def _bytes(column: pa.Array) -> memoryview:
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    return memoryview(data)[int(bounds[0]) : int(bounds[-1])] if len(column) else memoryview(b"")
