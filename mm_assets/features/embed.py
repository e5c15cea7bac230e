"""Embeds one shard: features in, one unit vector per modality and sample out.

The encoder is loaded once, by digest, and stays on its device; micro-batches are views of the memory-mapped
``tensors.arrow``. Nothing is decoded here.
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import TypeAdapter
from torch import Tensor

from mm_assets.errors import StageError
from mm_assets.features.bootstrap import ENCODER_FILE
from mm_assets.features.config import EncoderConfig
from mm_assets.features.encoder import BootstrapEncoder, load_encoder
from mm_assets.features.neighbours import Present, coherence, near_duplicate_keys
from mm_assets.features.schema import EMBEDDING_SIGNALS, EMBEDDINGS, MODALITIES
from mm_assets.store.commit import OutputFile, StageResult
from mm_assets.store.job import Job
from mm_assets.store.tables import PARQUET_TYPE, map_arrow, read_parquet, write_parquet

#: Rows per forward pass where the configuration does not say; no embedding depends on it.
DEFAULT_MICROBATCH_SIZE = 64
#: The image descriptor sums over a 16 x 16 grid, the audio descriptor over 10 groups of 40 bands.
IMAGE_MULTIPLE, NUM_MELS = 16, 40


def compute_embeddings(job: Job) -> StageResult:
    """Embeds the shard's features with the release's encoder.

    Raises:
        StageError: the encoder does not fit the configuration or the tensors.
    """
    config = TypeAdapter(EncoderConfig).validate_python(dict(job.params))
    digest = job.digest("encoder", ENCODER_FILE)
    encoder = load_encoder(job.store.get_bytes(digest), dim=config.dim, digest=digest)
    tensors = map_arrow(job.fetch("features", "tensors.arrow"))
    signals = read_parquet(job.fetch("features", "signals.parquet"), ["id", "text_minhash", "image_phash"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = int(str(job.placement.get("microbatch_size", DEFAULT_MICROBATCH_SIZE)))
    with _one_thread():
        embeddings = embed_table(encoder.to(device), tensors, microbatch_size=rows)
        return _write(tensors.column("id").to_pylist(), embeddings, signals, config=config, workdir=job.workdir)


@contextmanager
def _one_thread() -> Generator[None]:
    """One CPU thread: these operations are small, and threads that wait for each other on a busy machine cost tenfold.

    The number of threads is no part of the result.
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
    rows: dict[str, list[Tensor]] = {name: [torch.zeros(0, dtype=torch.int64)] for name in MODALITIES}
    vectors: dict[str, list[Tensor]] = {name: [torch.zeros(0, encoder.dim)] for name in MODALITIES}
    with torch.inference_mode():
        for start in range(0, tensors.num_rows, microbatch_size):
            batch = tensors.slice(start, microbatch_size)
            for name in MODALITIES:
                column = batch.column(name).combine_chunks()
                present = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
                if len(present):
                    rows[name].append(torch.from_numpy(present + start))
                    vectors[name].append(_embed(encoder, name, column.drop_null(), shape).cpu())
    return {name: (torch.cat(rows[name]), torch.cat(vectors[name])) for name in MODALITIES}


def _shape(tensors: pa.Table) -> tuple[int, int]:
    metadata = tensors.schema.metadata or {}
    size, num_mels = int(metadata[b"image_size"]), int(metadata[b"num_mels"])
    if size % IMAGE_MULTIPLE or num_mels != NUM_MELS:
        raise StageError(
            f"bootstrap encoder: does not fit these features: expected an image size divisible by {IMAGE_MULTIPLE} and "
            f"{NUM_MELS} mel bands, got {size} and {num_mels}. Change the features section of the recipe."
        )
    return size, num_mels


def _embed(encoder: BootstrapEncoder, modality: str, column: Any, shape: tuple[int, int]) -> Tensor:
    device = encoder.projections["image"].device
    if modality == "image":
        pixels = np.stack([np.frombuffer(value.as_buffer(), np.uint8) for value in column])
        return encoder.encode_image(torch.from_numpy(pixels.reshape(-1, shape[0], shape[0], 3)).to(device))
    if modality == "audio":
        clips = [np.frombuffer(value.as_buffer(), "<f4").reshape(-1, shape[1]) for value in column]
        lengths = torch.tensor([len(clip) for clip in clips])
        return encoder.encode_audio(torch.from_numpy(_padded(clips)).to(device), lengths.to(device))
    texts = [value.values.to_numpy() for value in column]
    return encoder.encode_text(torch.from_numpy(_padded(texts)).long().to(device))


def _padded(arrays: list[Any]) -> Any:
    """Arrays of different first lengths as one, filled with zeros."""
    longest = max(len(array) for array in arrays)
    padded = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in enumerate(arrays):
        padded[row, : len(array)] = array
    return padded


def _write(
    ids: list[str], embeddings: dict[str, Present], signals: pa.Table, *, config: EncoderConfig, workdir: Path
) -> StageResult:
    columns = [_column(len(ids), *embeddings[name]) for name in MODALITIES]
    keys = near_duplicate_keys(
        len(ids),
        embeddings,
        text_minhash=signals.column("text_minhash").to_pylist(),
        image_phash=signals.column("image_phash").to_pylist(),
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
        "modalities": {name: len(embeddings[name][0]) for name in MODALITIES},
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
