"""Where the blobs of a sample are: its row of ``samples.parquet`` as a list of parts in reading order."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mm_assets.drops.parts import part_names
from mm_assets.modalities.table import MODALITIES, NAMES, PACKED
from mm_assets.snapshot.schema import PARTS_SCHEMA

#: Columns that say where a blob is; those of parts are there where a sample of the shard is not plain.
BLOB_COLUMNS = [f"{modality}_{name}" for modality in NAMES for name in ("offset", "size_bytes", "format", "digest")] + [
    f"{modality}_{end}"
    for modality, kind in MODALITIES.items()
    if kind.has_time_ranges
    for end in ("start_us", "end_us")
]

PART_COLUMNS = tuple(PARTS_SCHEMA.names)


@dataclass(frozen=True, kw_only=True, slots=True)
class BlobRef:
    """One blob: bytes ``[offset, offset + size_bytes)`` of ``samples.tar``.

    ``place`` is where the part is read in a sample that is not plain, else None; ``name`` is what messages call it;
    ``time_range`` is the range of time that the sample is, start and end in microseconds.
    """

    sample: str
    modality: str
    digest: str
    offset: int
    size_bytes: int
    format: str
    name: str
    place: int | None = None
    time_range: tuple[int | None, int | None] | None = None

    @property
    def extension(self) -> str:
        """Of its member in ``samples.tar``."""
        return self.format if self.place is None else f"{self.place}.{self.format}"


def blob_columns(path: Path) -> list[str]:
    """The columns of a ``samples.parquet`` that say where blobs are."""
    known = set(pq.read_schema(path).names)
    return [*BLOB_COLUMNS, *(name for name in PART_COLUMNS if name in known)]


def blobs_of(row: Mapping[str, Any]) -> list[BlobRef]:
    """The blobs of a row with ``blob_columns``, in reading order."""
    parts = [(part["place"], modality, part) for modality in NAMES for part in row.get(f"{modality}_parts") or ()]
    if not parts:
        return [_ref(row, modality) for modality in PACKED if row.get(f"{modality}_digest") is not None]
    ordered = sorted(parts, key=lambda part: part[0])
    names = part_names([modality for _, modality, _ in ordered])
    return [
        BlobRef(sample=row["id"], modality=modality, name=name, time_range=_time_range(row, modality), **part)
        for (_, modality, part), name in zip(ordered, names, strict=True)
    ]


def _ref(row: Mapping[str, Any], modality: str) -> BlobRef:
    return BlobRef(
        sample=row["id"],
        modality=modality,
        name=modality,
        time_range=_time_range(row, modality),
        **{name: row[f"{modality}_{name}"] for name in ("digest", "offset", "size_bytes", "format")},
    )


def _time_range(row: Mapping[str, Any], modality: str) -> tuple[int | None, int | None] | None:
    start, end = (row.get(f"{modality}_{name}") for name in ("start_us", "end_us"))
    return None if start is None and end is None else (start, end)
