"""Embeds one shard: features in, one unit vector per modality and sample out.

The encoder is loaded once, by digest, and stays on its device; micro-batches are views of the memory-mapped
``tensors.arrow``. Nothing is decoded here.
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from pydantic import TypeAdapter
from torch import Tensor

from mm_assets.errors import StageError
from mm_assets.features.bootstrap import ENCODER_FILE
from mm_assets.features.config import EncoderConfig
from mm_assets.features.encoder import BootstrapEncoder, load_encoder
from mm_assets.features.neighbours import KEY_COLUMNS, Present, coherence, near_duplicate_keys
from mm_assets.features.schema import EMBEDDING_SIGNALS, EMBEDDINGS
from mm_assets.modalities.table import NAMES, aspect
from mm_assets.store.commit import OutputFile, StageResult
from mm_assets.store.job import Job
from mm_assets.store.tables import PARQUET_TYPE, map_arrow, read_parquet, write_parquet

#: Rows per forward pass where the configuration does not say; no embedding depends on it.
DEFAULT_MICROBATCH_SIZE = 64


def compute_embeddings(job: Job) -> StageResult:
    """Embeds the shard's features with the release's encoder.

    Raises:
        StageError: the encoder does not fit the configuration or the tensors.
    """
    config = TypeAdapter(EncoderConfig).validate_python(dict(job.params))
    digest = job.digest("encoder", ENCODER_FILE)
    encoder = load_encoder(job.store.get_bytes(digest), dim=config.dim, digest=digest)
    tensors = map_arrow(job.fetch("features", "tensors.arrow"))
    signals = read_parquet(job.fetch("features", "signals.parquet"), ["id", *KEY_COLUMNS])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = int(str(job.placement.get("microbatch_size", DEFAULT_MICROBATCH_SIZE)))
    with _one_thread():
        embeddings = embed_table(encoder.to(device), tensors, microbatch_size=rows)
        return _write(tensors.column("id").to_pylist(), embeddings, signals, config=config, workdir=job.workdir)


@contextmanager
def _one_thread() -> Generator[None]:
    """One CPU thread: these operations are small, and threads that wait for each other on a busy machine cost tenfold.

    The number of threads does not change the result.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def embed_table(encoder: BootstrapEncoder, tensors: pa.Table, *, microbatch_size: int) -> dict[str, Present]:
    """Row numbers and float32 embeddings [rows, dim] of each modality, on the CPU.

    Args:
        encoder: On any device.
        tensors: ``tensors.arrow``, with its schema metadata.
        microbatch_size: Rows per forward pass; does not change any embedding.

    Raises:
        StageError: the tensors have a shape that the encoder does not know.
    """
    shape = _shape(tensors)
    rows: dict[str, list[Tensor]] = {name: [torch.zeros(0, dtype=torch.int64)] for name in NAMES}
    vectors: dict[str, list[Tensor]] = {name: [torch.zeros(0, encoder.dim)] for name in NAMES}
    with torch.inference_mode():
        for start in range(0, tensors.num_rows, microbatch_size):
            batch = tensors.slice(start, microbatch_size)
            for name in NAMES:
                column = batch.column(name).combine_chunks()
                present = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
                if len(present):
                    rows[name].append(torch.from_numpy(present + start))
                    inputs = aspect(name, "descriptor").collect(column.drop_null(), shape)
                    vectors[name].append(encoder.encode(name, *inputs).cpu())
    return {name: (torch.cat(rows[name]), torch.cat(vectors[name])) for name in NAMES}


def _shape(tensors: pa.Table) -> dict[str, int]:
    shape = {name.decode(): int(value) for name, value in (tensors.schema.metadata or {}).items()}
    for name in NAMES:
        expected = aspect(name, "descriptor").misfit(shape)
        if expected:
            raise StageError(
                f"bootstrap encoder: does not fit these features: expected {expected}. "
                "Change the features section of the configuration."
            )
    return shape


def _write(
    ids: list[str], embeddings: dict[str, Present], signals: pa.Table, *, config: EncoderConfig, workdir: Path
) -> StageResult:
    columns = [_column(len(ids), *embeddings[name]) for name in NAMES]
    keys = near_duplicate_keys(
        len(ids),
        embeddings,
        columns={name: signals.column(name).to_pylist() for name in KEY_COLUMNS},
        config=config,
    )
    tables = {
        "embeddings.parquet": pa.table([pa.array(ids, pa.string()), *columns], schema=EMBEDDINGS),
        "signals.parquet": pa.table(
            [
                pa.array(ids, pa.string()),
                pa.array(keys, pa.string()),
                pa.array(coherence(ids, embeddings, config), pa.float64()),
            ],
            schema=EMBEDDING_SIGNALS,
        ),
    }
    files = tuple(
        OutputFile(
            name=name, path=write_parquet(table, workdir / name), media_type=PARQUET_TYPE, num_rows=table.num_rows
        )
        for name, table in tables.items()
    )
    stats = {
        "rows_in": len(ids),
        "rows_out": len(ids),
        "dead_letters": 0,
        "modalities": {name: len(embeddings[name][0]) for name in NAMES},
    }
    return StageResult(files=files, stats=stats)


def _column(num_rows: int, rows: Tensor, vectors: Tensor) -> pa.Array:
    """list<float32>, null where the modality is absent."""
    lengths = np.zeros(num_rows, np.int32)
    lengths[rows.numpy()] = vectors.shape[1]
    offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
    absent = lengths == 0
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(vectors.numpy().ravel()), type=pa.list_(pa.float32()), mask=pa.array(absent)
    )
