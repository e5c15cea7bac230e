"""Embeds one shard: features in, one unit vector per modality and sample out.

The encoder is loaded once, by digest, and stays on its device; micro-batches are views of the memory-mapped
``tensors.arrow``. Nothing is decoded here. Of several parts each is embedded by itself, and the sample has the mean of
their vectors, of length one.
"""

import importlib
import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from pydantic import TypeAdapter
from torch import Tensor

from mm_assets.errors import StageError
from mm_assets.features.bootstrap import ENCODER_FILE
from mm_assets.features.config import TOWERS_CODE, EncoderConfig
from mm_assets.features.encoder import load_encoder
from mm_assets.features.kinds import PRETRAINED
from mm_assets.features.neighbours import Present, coherence
from mm_assets.features.schema import EMBEDDING_SIGNALS, EMBEDDINGS
from mm_assets.modalities.device import device_of
from mm_assets.modalities.parts import PARTS, Parts, explode, lengths_of, parse_parts
from mm_assets.modalities.table import NAMES
from mm_assets.store.commit import OutputFile, StageResult
from mm_assets.store.job import Job
from mm_assets.store.tables import PARQUET_TYPE, map_arrow, write_parquet

#: Loaded by name, so that an edit of the training network is no edit of the bootstrap encoder, and that the library
#: that pretrained models need is loaded for them alone.
TOWERS_MODULE = "mm_assets.features.towers"
PRETRAINED_MODULE = "mm_assets.features.pretrained_models"
#: Rows per forward pass where the configuration does not say; no embedding depends on it.
DEFAULT_MICROBATCH_SIZE = 64
#: Sums of vectors shorter than this point nowhere.
SHORTEST = 1e-6


class Encoder(Protocol):
    """What embeds the columns of a shard."""

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        ...

    @property
    def batch_rows(self) -> int | None:
        """Rows per forward pass that its embeddings are defined by; None where any number gives the same bits."""
        ...

    @property
    def modalities(self) -> tuple[str, ...]:
        """What it embeds; the columns of others stay empty."""
        ...

    def misfit(self, shape: Mapping[str, int]) -> str | None:
        """What is expected of the tensors and not so."""
        ...

    def encode_column(self, modality: str, column: pa.Array, shape: Mapping[str, int]) -> Tensor:
        """The values of a column without nulls as float32 unit vectors [B, D]."""
        ...


def compute_embeddings(job: Job) -> StageResult:
    """Embeds the shard's features with the release's encoder.

    Raises:
        StageError: the encoder does not fit the configuration or the tensors.
    """
    config = TypeAdapter(EncoderConfig).validate_python(
        {name: value for name, value in job.params.items() if name not in (TOWERS_CODE, PRETRAINED)}
    )
    encoder = _load(job, config)
    tensors = map_arrow(job.fetch("features", "tensors.arrow"))
    device = device_of("embeddings", job.placement)
    rows = int(str(job.placement.get("microbatch_size", DEFAULT_MICROBATCH_SIZE)))
    with _one_thread():
        embeddings = embed_table(encoder.to(device), tensors, microbatch_size=rows)
        return _write(tensors.column("id").to_pylist(), embeddings, config=config, workdir=job.workdir)


def _load(job: Job, config: EncoderConfig) -> Any:
    """The pinned encoder; the code of another kind than the bootstrap one is named by a parameter and loaded here."""
    if PRETRAINED in job.params:
        return importlib.import_module(PRETRAINED_MODULE).load_pretrained(job, dim=config.dim)
    digest = job.digest("encoder", ENCODER_FILE)
    if TOWERS_CODE not in job.params:
        return load_encoder(job.store.get_bytes(digest), dim=config.dim, digest=digest)
    path = job.fetch("encoder", ENCODER_FILE)
    return importlib.import_module(TOWERS_MODULE).load_towers(str(path), dim=config.dim, digest=digest)


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


def embed_table(encoder: Encoder, tensors: pa.Table, *, microbatch_size: int) -> dict[str, Present]:
    """Row numbers and float32 embeddings [rows, dim] of each modality, on the CPU.

    Args:
        encoder: On any device.
        tensors: ``tensors.arrow``, with its schema metadata.
        microbatch_size: Rows per forward pass where the encoder leaves it open; does not change any embedding.

    Raises:
        StageError: the tensors have a shape that the encoder does not know.
    """
    shape = _shape(encoder, tensors)
    step = encoder.batch_rows or microbatch_size
    rows: dict[str, list[Tensor]] = {name: [torch.zeros(0, dtype=torch.int64)] for name in NAMES}
    vectors: dict[str, list[Tensor]] = {name: [torch.zeros(0, encoder.dim)] for name in NAMES}
    with torch.inference_mode():
        for start in range(0, tensors.num_rows, step):
            batch = tensors.slice(start, step)
            for name in encoder.modalities:
                column = batch.column(name).combine_chunks()
                present = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
                if len(present):
                    parts = batch_parts(batch)
                    lengths = [lengths_of(parts[place], name) for place in present] if parts else []
                    rows[name].append(torch.from_numpy(present + start))
                    vectors[name].append(_encode(encoder, name, column.drop_null(), lengths, shape, step))
    return {name: (torch.cat(rows[name]), torch.cat(vectors[name])) for name in NAMES}


def batch_parts(batch: pa.Table) -> list[Parts | None]:
    """The parts of every row; empty where all rows are plain."""
    if PARTS not in batch.column_names or batch.column(PARTS).null_count == batch.num_rows:
        return []
    return [parse_parts(value) for value in batch.column(PARTS).to_pylist()]


def _encode(
    encoder: Encoder, name: str, column: pa.Array, lengths: list[list[int]], shape: Mapping[str, int], step: int
) -> Tensor:
    """A vector per value of a column without nulls; ``lengths`` by value those of its parts, empty for all plain."""
    if not any(len(own) > 1 for own in lengths):
        return encoder.encode_column(name, column, shape).cpu()
    values = explode(column, lengths)
    chunks = [values.slice(first, step) for first in range(0, len(values), step)]
    vectors_XD = torch.cat([encoder.encode_column(name, chunk, shape).cpu() for chunk in chunks])
    return torch.stack([mean_vector(part) for part in vectors_XD.split([max(len(own), 1) for own in lengths])])


def mean_vector(vectors_ND: Tensor) -> Tensor:
    """The mean of unit vectors, of length one; of vectors that cancel each other the first."""
    if len(vectors_ND) == 1:
        return vectors_ND[0]
    total_D = vectors_ND[0].double()
    for vector_D in vectors_ND[1:]:
        # In the order of the parts, so that the sum is the same on every machine.
        total_D = total_D + vector_D.double()
    length = math.sqrt(math.fsum((total_D * total_D).tolist()))
    return vectors_ND[0] if length < SHORTEST else (total_D / length).float()


def _shape(encoder: Encoder, tensors: pa.Table) -> dict[str, int]:
    shape = {name.decode(): int(value) for name, value in (tensors.schema.metadata or {}).items()}
    expected = encoder.misfit(shape)
    if expected:
        raise StageError(
            f"encoder: does not fit these features: expected {expected}. Change the features section of the "
            "configuration, or take another encoder."
        )
    return shape


def _write(ids: list[str], embeddings: dict[str, Present], *, config: EncoderConfig, workdir: Path) -> StageResult:
    columns = [_column(len(ids), *embeddings[name]) for name in NAMES]
    tables = {
        "embeddings.parquet": pa.table([pa.array(ids, pa.string()), *columns], schema=EMBEDDINGS),
        "signals.parquet": pa.table(
            [
                pa.array(ids, pa.string()),
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
