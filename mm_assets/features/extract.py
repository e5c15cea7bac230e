"""Decodes one shard: a snapshot in, tensors, signals and dead letters out.

Each blob is read, verified and decoded exactly once. Memory is bounded by one batch of ``BATCH_ROWS`` samples and the
narrow columns; a sample with a blob that does not decode becomes one dead letter, all others go through. Rows are
sorted by id, whatever order the snapshot has.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from pydantic import TypeAdapter

from mm_assets.features.blobs import BlobRef, TarBlobs
from mm_assets.features.config import FeaturesConfig
from mm_assets.features.schema import DEAD_LETTERS, signals_schema, tensors_schema
from mm_assets.modalities import caption
from mm_assets.modalities.reasons import BlobRejectedError
from mm_assets.modalities.table import MODALITIES, NAMES, PACKED
from mm_assets.store.commit import OutputFile, StageResult
from mm_assets.store.job import Job
from mm_assets.store.tables import ARROW_TYPE, BATCH_ROWS, PARQUET_TYPE, read_parquet, table_of, write_parquet

READ_COLUMNS = ["id", "object"] + [
    f"{modality}_{column}" for modality in NAMES for column in ("digest", "offset", "size_bytes")
]

Row = dict[str, Any]


def compute_features(job: Job) -> StageResult:
    """Decodes the shard's snapshot.

    Raises:
        ObjectCorruptError: a blob does not have the digest its row states.
    """
    config = TypeAdapter(FeaturesConfig).validate_python(dict(job.params))
    rows = read_parquet(job.fetch("snapshot", "samples.parquet"), READ_COLUMNS).sort_by("id")
    with TarBlobs(job.fetch("snapshot", "samples.tar")) as blobs:
        return extract_shard(rows, blobs, config, job.workdir)


def extract_shard(rows: pa.Table, blobs: TarBlobs, config: FeaturesConfig, workdir: Path) -> StageResult:
    """Writes the three files for ``rows`` (``READ_COLUMNS``, sorted by id) to ``workdir``.

    Args:
        rows: One row per sample.
        blobs: Where their bytes are.
        config: How they are decoded.
        workdir: An existing folder.
    """
    tensors = workdir / "tensors.arrow"
    writer = _Writer(config=config, tensors=tensors)
    letters: list[Row] = []
    with pa.OSFile(str(tensors), "wb") as sink, pa.ipc.new_file(sink, tensors_schema(config)) as arrow:
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
            "detail": cause.detail,
            "digest": ref.digest,
            "size_bytes": ref.size_bytes,
        }


@dataclass(kw_only=True)
class _Writer:
    """Rows on their way to ``tensors.arrow`` (in batches) and ``signals.parquet`` (kept, narrow)."""

    config: FeaturesConfig
    tensors: Path
    pending: list[Row] = field(default_factory=list[Row])
    pending_signals: list[Row] = field(default_factory=list[Row])
    signals: list[pa.Table] = field(default_factory=list[pa.Table])

    def add(self, tensors: Row, signals: Row) -> None:
        self.pending.append(tensors)
        self.pending_signals.append(signals)

    def flush(self, arrow: pa.ipc.RecordBatchFileWriter) -> None:
        if self.pending or not self.signals:
            arrow.write_table(table_of(self.pending, tensors_schema(self.config)).combine_chunks())
            self.signals.append(table_of(self.pending_signals, signals_schema(self.config)))
        self.pending, self.pending_signals = [], []


def _iter_rows(rows: pa.Table) -> Iterator[Row]:
    for batch in rows.to_batches(max_chunksize=BATCH_ROWS):
        yield from cast("list[Row]", batch.to_pylist())


def _sample(row: Row, blobs: TarBlobs, config: FeaturesConfig) -> tuple[Row, Row]:
    """Tensors and signals of one sample.

    Raises:
        _SampleRejectedError: one of its blobs does not decode; the first in the order of the table.
    """
    decoded: dict[str, Any] = {}
    for modality, kind in MODALITIES.items():
        if row[f"{modality}_digest"] is None:
            continue
        ref = BlobRef(
            sample=row["id"],
            modality=modality,
            digest=row[f"{modality}_digest"],
            offset=row[f"{modality}_offset"],
            size_bytes=row[f"{modality}_size_bytes"],
        )
        try:
            decoded[modality] = kind.aspect("decode").decode(blobs.read(ref), config)
        except BlobRejectedError as error:
            raise _SampleRejectedError(row, ref, error) from error
    return _rows(row["id"], decoded, config)


def _rows(sample: str, decoded: Mapping[str, Any], config: FeaturesConfig) -> tuple[Row, Row]:
    tensors: Row = {"id": sample}
    signals: Row = {"id": sample}
    for modality in PACKED:
        kind, value = MODALITIES[modality], decoded.get(modality)
        made, length = (None, 0) if value is None else kind.aspect("tensor").make_tensor(value, config)
        tensors[modality] = made
        signals[f"has_{modality}"] = value is not None
        if kind.length_column is not None:
            signals[kind.length_column] = length
        if value is not None:
            signals |= kind.aspect("signals").measure(value, config)
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
        "reasons": {reason: sum(letter["reason"] == reason for letter in letters) for reason in reasons},
    }
