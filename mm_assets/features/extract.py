"""Decodes one shard: a snapshot in, tensors, signals and dead letters out.

Each sample is decoded exactly once. Its blobs are read and verified for it, but for a video of which samples that
follow one another are ranges of time: it is read, verified and judged once for these (``TarBlobs.held``). A sample has
one row, however many parts it has: the tensor of a modality is that of its parts one after the other, its signals are
combined (``modalities/combine.py``). Memory is bounded by one batch of ``BATCH_ROWS`` samples, the blobs that are held
and a row group of signals; a sample with a blob that does not decode becomes one dead letter, all others go through.
Rows are sorted by id, whatever order the snapshot has.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from pydantic import TypeAdapter

from mm_assets.errors import MmError
from mm_assets.features.blobs import HeldBlob, TarBlobs
from mm_assets.features.config import FeaturesConfig
from mm_assets.features.schema import DEAD_LETTERS, signals_schema, tensors_schema
from mm_assets.modalities import caption, origin
from mm_assets.modalities.combine import combine
from mm_assets.modalities.parts import PARTS
from mm_assets.modalities.reasons import BlobRejectedError, unexpected
from mm_assets.modalities.table import MODALITIES, NAMES, PACKED
from mm_assets.snapshot.blobs import PART_COLUMNS, BlobRef, blob_columns, blobs_of
from mm_assets.store.commit import OutputFile, StageResult
from mm_assets.store.job import Job
from mm_assets.store.tables import (
    ARROW_TYPE,
    BATCH_ROWS,
    PARQUET_TYPE,
    RowsWriter,
    read_parquet,
    table_of,
    write_parquet,
)

Row = dict[str, Any]


def compute_features(job: Job) -> StageResult:
    """Decodes the shard's snapshot.

    Raises:
        ObjectCorruptError: a blob does not have the digest its row states.
    """
    config = TypeAdapter(FeaturesConfig).validate_python(dict(job.params))
    samples = job.fetch("snapshot", "samples.parquet")
    rows = read_parquet(samples, ["id", "object", *blob_columns(samples)]).sort_by("id")
    with TarBlobs(job.fetch("snapshot", "samples.tar")) as blobs:
        return extract_shard(rows, blobs, config, job.workdir)


def extract_shard(rows: pa.Table, blobs: TarBlobs, config: FeaturesConfig, workdir: Path) -> StageResult:
    """Writes the three files for ``rows`` to ``workdir``.

    Args:
        rows: One row per sample, sorted by id: ``id``, ``object`` and the columns of its blobs.
        blobs: Where their bytes are.
        config: How they are decoded.
        workdir: An existing folder.
    """
    tensors, signals = workdir / "tensors.arrow", workdir / "signals.parquet"
    has_parts = any(rows.column(name).null_count < rows.num_rows for name in rows.column_names if name in PART_COLUMNS)
    schema = tensors_schema(config, has_parts=has_parts)
    counts = _Counts(has_parts=has_parts)
    pending: list[Row] = []
    letters: list[Row] = []
    with (
        pa.OSFile(str(tensors), "wb") as sink,
        pa.ipc.new_file(sink, schema) as arrow,
        RowsWriter(signals, signals_schema(config, has_parts=has_parts)) as table,
    ):
        for row in _iter_rows(rows):
            try:
                made, measured = _sample(row, blobs, config)
            except _SampleRejectedError as error:
                letters.append(error.letter)
                continue
            pending.append(made)
            table.append(measured)
            counts.add(measured)
            if len(pending) == BATCH_ROWS:
                arrow.write_table(table_of(pending, schema).combine_chunks())
                pending = []
        if pending or not counts.num_rows:
            arrow.write_table(table_of(pending, schema).combine_chunks())
    files = (
        OutputFile(name="tensors.arrow", path=tensors, media_type=ARROW_TYPE, num_rows=counts.num_rows),
        OutputFile(name="signals.parquet", path=signals, media_type=PARQUET_TYPE, num_rows=counts.num_rows),
        _parquet(table_of(letters, DEAD_LETTERS), workdir, "dead_letters.parquet"),
    )
    return StageResult(files=files, stats=counts.stats(rows.num_rows, letters))


class _SampleRejectedError(ValueError):
    """One blob of a sample did not decode; ``letter`` is its dead letter."""

    def __init__(self, row: Row, ref: BlobRef, cause: BlobRejectedError):
        super().__init__(row["id"])
        self.letter: Row = {
            "id": row["id"],
            "object": row["object"],
            "member": None,
            "modality": ref.modality,
            "stage": "features",
            "reason": cause.reason,
            "detail": cause.detail if ref.place is None else f"{ref.name}: {cause.detail}",
            "digest": ref.digest,
            "size_bytes": ref.size_bytes,
        }


@dataclass(kw_only=True)
class _Counts:
    """What the manifest says about the shard in numbers, counted while it is written."""

    has_parts: bool
    num_rows: int = 0
    modalities: Counter[str] = field(default_factory=Counter[str])
    parts: Counter[str] = field(default_factory=Counter[str])

    def add(self, signals: Row) -> None:
        """Counts one sample; a modality of a plain sample is one part."""
        present = [name for name in NAMES if signals[f"has_{name}"]]
        parts = signals.get(PARTS)
        self.num_rows += 1
        self.modalities.update(present)
        self.parts.update(present if parts is None else [part["modality"] for part in parts])

    def stats(self, rows_in: int, letters: list[Row]) -> dict[str, Any]:
        reasons = Counter(str(letter["reason"]) for letter in letters)
        return {
            "rows_in": rows_in,
            "rows_out": self.num_rows,
            "dead_letters": len(letters),
            "modalities": {name: self.modalities[name] for name in NAMES},
            **({"parts": {name: self.parts[name] for name in NAMES}} if self.has_parts else {}),
            "reasons": dict(sorted(reasons.items())),
        }


def _iter_rows(rows: pa.Table) -> Iterator[Row]:
    for batch in rows.to_batches(max_chunksize=BATCH_ROWS):
        yield from cast("list[Row]", batch.to_pylist())


def _sample(row: Row, blobs: TarBlobs, config: FeaturesConfig) -> tuple[Row, Row]:
    """Tensors and signals of one sample.

    Raises:
        _SampleRejectedError: one of its blobs does not decode; the first in the order of the table.
    """
    refs = blobs_of(row)
    delivered = {ref.modality for ref in refs}
    parts: dict[int, tuple[_Part, list[_Part]]] = {}
    for position in sorted(range(len(refs)), key=lambda position: NAMES.index(refs[position].modality)):
        ref = refs[position]
        # A whole blob may be shared too, but not by as many samples as have ranges of it.
        blob = blobs.held(ref) if ref.time_range is not None else HeldBlob(data=blobs.read(ref))
        try:
            parts[position] = _decoded(ref, blob, config, delivered)
        except BlobRejectedError as error:
            raise _SampleRejectedError(row, ref, error) from error
        except (MmError, MemoryError):
            raise
        except Exception as error:
            # One blob must not end a shard.
            refusal = unexpected(f"{ref.modality} {ref.digest}", error)
            raise _SampleRejectedError(row, ref, BlobRejectedError(refusal)) from error
    ordered = [part for position in range(len(refs)) for part in (parts[position][0], *parts[position][1])]
    tensors, signals = _rows(row["id"], ordered)
    signals |= origin.measure(delivered, {part.modality for part in ordered})
    if any(ref.place is not None for ref in refs):
        tensors[PARTS] = [{"modality": part.modality, "length": part.length} for part in ordered]
        signals[PARTS] = [
            {**said, "digest": part.signals[MODALITIES[part.modality].digest_column]}
            for said, part in zip(tensors[PARTS], ordered, strict=True)
        ]
    return tensors, signals


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """One blob: the value of its column, its length, and its signals."""

    modality: str
    tensor: Any
    length: int
    signals: Mapping[str, Any]


def _decoded(
    ref: BlobRef, blob: HeldBlob, config: FeaturesConfig, delivered: Collection[str]
) -> tuple[_Part, list[_Part]]:
    """A blob, and what it holds of modalities that are not delivered on their own."""
    kind = MODALITIES[ref.modality]
    module = kind.aspect("decode")
    tracks = [name for name in kind.tracks if name not in delivered]
    if kind.has_time_ranges:
        blob.prepared = blob.prepared or module.prepare(blob.data, config)
        decoded = module.decode_range(blob.prepared, config, ref.time_range, tracks=tracks)
    else:
        decoded = module.decode(blob.data, config)
    held = [(name, kind.aspect("tracks").TRACKS[name](decoded)) for name in tracks]
    return _part(ref.modality, decoded, config), [
        _part(name, track, config) for name, track in held if track is not None
    ]


def _part(modality: str, decoded: Any, config: FeaturesConfig) -> _Part:
    kind = MODALITIES[modality]
    tensor, length = kind.aspect("tensor").make_tensor(decoded, config)
    signals = kind.aspect("signals").measure(decoded, config)
    return _Part(modality=modality, tensor=tensor, length=length, signals=signals)


def _rows(sample: str, parts: Sequence[_Part]) -> tuple[Row, Row]:
    tensors: Row = {"id": sample}
    signals: Row = {"id": sample}
    for modality in PACKED:
        kind = MODALITIES[modality]
        own = [(place, part) for place, part in enumerate(parts) if part.modality == modality]
        tensors[modality] = reduce(add, (part.tensor for _, part in own)) if own else None
        signals[f"has_{modality}"] = bool(own)
        if kind.length_column is not None:
            signals[kind.length_column] = sum(part.length for _, part in own)
        if own:
            signals |= combine(modality, [(place, part.signals) for place, part in own])
    return tensors, signals | caption.measure(signals)


def _parquet(table: pa.Table, workdir: Path, name: str) -> OutputFile:
    path = write_parquet(table, workdir / name)
    return OutputFile(name=name, path=path, media_type=PARQUET_TYPE, num_rows=table.num_rows)
