"""Decodes one shard: a snapshot in, tensors, signals and dead letters out.

Each blob is read, verified and decoded exactly once. A sample has one row, however many parts it has: the tensor of a
modality is that of its parts one after the other, its signals are combined (``modalities/combine.py``). Memory is
bounded by one batch of ``BATCH_ROWS`` samples and the narrow columns; a sample with a blob that does not decode becomes
one dead letter, all others go through. Rows are sorted by id, whatever order the snapshot has.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from pydantic import TypeAdapter

from mm_assets.errors import MmError
from mm_assets.features.blobs import TarBlobs
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
from mm_assets.store.tables import ARROW_TYPE, BATCH_ROWS, PARQUET_TYPE, read_parquet, table_of, write_parquet

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
    tensors = workdir / "tensors.arrow"
    has_parts = any(rows.column(name).null_count < rows.num_rows for name in rows.column_names if name in PART_COLUMNS)
    writer = _Writer(config=config, tensors=tensors, has_parts=has_parts)
    letters: list[Row] = []
    with pa.OSFile(str(tensors), "wb") as sink, pa.ipc.new_file(sink, writer.tensors_schema) as arrow:
        for row in _iter_rows(rows):
            try:
                writer.add(*_sample(row, blobs, config))
            except _SampleRejectedError as error:
                letters.append(error.letter)
            if len(writer.pending) == BATCH_ROWS:
                writer.flush(arrow)
        writer.flush(arrow)
    signals = pa.concat_tables(writer.signals)
    files = (
        OutputFile(name="tensors.arrow", path=tensors, media_type=ARROW_TYPE, num_rows=signals.num_rows),
        _parquet(signals, workdir, "signals.parquet"),
        _parquet(table_of(letters, DEAD_LETTERS), workdir, "dead_letters.parquet"),
    )
    return StageResult(files=files, stats=_stats(rows, signals, letters))


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
class _Writer:
    """Rows on their way to ``tensors.arrow`` (in batches) and ``signals.parquet`` (kept, narrow)."""

    config: FeaturesConfig
    tensors: Path
    has_parts: bool
    pending: list[Row] = field(default_factory=list[Row])
    pending_signals: list[Row] = field(default_factory=list[Row])
    signals: list[pa.Table] = field(default_factory=list[pa.Table])

    @property
    def tensors_schema(self) -> pa.Schema:
        return tensors_schema(self.config, has_parts=self.has_parts)

    def add(self, tensors: Row, signals: Row) -> None:
        self.pending.append(tensors)
        self.pending_signals.append(signals)

    def flush(self, arrow: pa.ipc.RecordBatchFileWriter) -> None:
        if self.pending or not self.signals:
            arrow.write_table(table_of(self.pending, self.tensors_schema).combine_chunks())
            schema = signals_schema(self.config, has_parts=self.has_parts)
            self.signals.append(table_of(self.pending_signals, schema))
        self.pending, self.pending_signals = [], []


def _iter_rows(rows: pa.Table) -> Iterator[Row]:
    for batch in rows.to_batches(max_chunksize=BATCH_ROWS):
        yield from cast("list[Row]", batch.to_pylist())


def _sample(row: Row, blobs: TarBlobs, config: FeaturesConfig) -> tuple[Row, Row]:
    """Tensors and signals of one sample.

    Raises:
        _SampleRejectedError: one of its blobs does not decode; the first in the order of the table.
    """
    refs = blobs_of(row)
    parts: dict[int, tuple[_Part, list[_Part]]] = {}
    for position in sorted(range(len(refs)), key=lambda position: NAMES.index(refs[position].modality)):
        ref = refs[position]
        data = blobs.read(ref)
        try:
            parts[position] = _decoded(ref, data, config)
        except BlobRejectedError as error:
            raise _SampleRejectedError(row, ref, error) from error
        except (MmError, MemoryError):
            raise
        except Exception as error:
            # One blob must not end a shard.
            refusal = unexpected(f"{ref.modality} {ref.digest}", error)
            raise _SampleRejectedError(row, ref, BlobRejectedError(refusal)) from error
    delivered = {ref.modality for ref in refs}
    ordered = [
        part
        for position in range(len(refs))
        for part in (parts[position][0], *(track for track in parts[position][1] if track.modality not in delivered))
    ]
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


def _decoded(ref: BlobRef, data: bytes, config: FeaturesConfig) -> tuple[_Part, list[_Part]]:
    """A blob, and what it holds of other modalities."""
    kind = MODALITIES[ref.modality]
    time_range = (ref.time_range,) if kind.has_time_ranges else ()
    decoded = kind.aspect("decode").decode(data, config, *time_range)
    tracks = {name: kind.aspect("tracks").TRACKS[name](decoded) for name in kind.tracks}
    held = [_part(name, track, config) for name, track in tracks.items() if track is not None]
    return _part(ref.modality, decoded, config), held


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


def _stats(rows: pa.Table, signals: pa.Table, letters: list[Row]) -> dict[str, Any]:
    reasons = sorted({str(letter["reason"]) for letter in letters})
    return {
        "rows_in": rows.num_rows,
        "rows_out": signals.num_rows,
        "dead_letters": len(letters),
        "modalities": {name: sum(signals.column(f"has_{name}").to_pylist()) for name in NAMES},
        **_part_counts(signals),
        "reasons": {reason: sum(letter["reason"] == reason for letter in letters) for reason in reasons},
    }


def _part_counts(signals: pa.Table) -> dict[str, Any]:
    """Parts by modality, where a sample is not plain; a modality of a plain sample is one part."""
    if PARTS not in signals.column_names:
        return {}
    counts = Counter[str]()
    columns = [PARTS, *(f"has_{name}" for name in NAMES)]
    for row in signals.select(columns).to_pylist():
        parts = row[PARTS]
        counts.update(
            [name for name in NAMES if row[f"has_{name}"]] if parts is None else [part["modality"] for part in parts]
        )
    return {"parts": {name: counts[name] for name in NAMES}}
