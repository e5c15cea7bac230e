"""Keys and scores derived from a shard's embeddings: near-duplicate keys and cross-modal coherence.

Both depend on the rows alone, not on their order: a key on its own sample only, coherence on the shard's set of rows.
"""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from mm_assets.features.config import EncoderConfig
from mm_assets.modalities.table import MODALITIES, NAMES, PACKED

#: Embeddings are rounded to this grid before they are compared: sums of 64 products stay whole numbers.
GRID = 127
CHUNK_ROWS = 1024
#: The columns of signals that keys begin with.
KEY_COLUMNS = tuple(row.near_key_column for row in MODALITIES.values() if row.near_key_column is not None)

#: One modality's embeddings: rows that have it (ascending) and their vectors [rows, dim].
Present = tuple[Tensor, Tensor]


def near_duplicate_keys(
    num_rows: int,
    embeddings: Mapping[str, Present],
    *,
    columns: Mapping[str, Sequence[str | None]],
    config: EncoderConfig,
) -> list[str | None]:
    """One key per row: equal keys mean nearly the same picture; without one, the same sound; without both, text.

    A picture's key is its perceptual hash and ``near_duplicate_bits`` signs of its embedding, a clip's all signs of its
    embedding, a text's its MinHash. Keys are tight, so that few pairs are wrong: of 502 emoji saved as JPEG at quality
    75, half keep their key. A pair whose hash lies near a boundary is missed. Whether two samples with one key
    are copies of each other is for the freeze to say, which knows their other modalities.

    Source: sign bits of projections, Charikar 2002, "Similarity estimation techniques from rounding algorithms".
    """
    keys: list[str | None] = [None] * num_rows
    for modality in reversed(PACKED):
        row = MODALITIES[modality]
        given = columns[row.near_key_column] if row.near_key_column is not None else None
        if row.near_key_bits is None:
            keys = [f"{modality}:{value}" if value else key for key, value in zip(keys, given or keys, strict=True)]
            continue
        rows, vectors = embeddings[modality]
        packed = np.packbits((vectors[:, : getattr(config, row.near_key_bits)] > 0).numpy(), axis=1)
        for place, signs in zip(rows.tolist(), packed, strict=True):
            prefix = f"{given[place]}:" if given is not None else ""
            keys[place] = f"{modality}:{prefix}{signs.tobytes().hex()}"
    return keys


def coherence(ids: Sequence[str], embeddings: Mapping[str, Present], config: EncoderConfig) -> list[float | None]:
    """Per row, the share of common neighbours in two of its modalities, averaged over its pairs of modalities.

    Neighbours are looked for among ``reference_rows`` rows of the shard that have both modalities, chosen by the digest
    of their ids. Near 0 means that the sample's neighbours by picture are not its neighbours by text; chance
    gives ``neighbours`` / references. None for one modality, and where fewer than 2 x ``neighbours`` others exist.

    Source: mutual nearest-neighbour alignment, Huh et al. 2024, arXiv:2405.07987.
    """
    order = [hashlib.sha256(name.encode()).digest() for name in ids]
    scores: list[list[float]] = [[] for _ in ids]
    for first, second in combinations((name for name in NAMES if name in embeddings), 2):
        rows, vectors = _both(embeddings[first], embeddings[second])
        chosen = sorted(range(len(rows)), key=lambda position: order[rows[position]])[: config.reference_rows]
        if len(chosen) <= 2 * config.neighbours:
            continue
        nearest = [_nearest(matrix, torch.tensor(chosen), config.neighbours) for matrix in vectors]
        for row, left, right in zip(rows, nearest[0].tolist(), nearest[1].tolist(), strict=True):
            scores[row].append(len(set(left) & set(right)) / config.neighbours)
    return [sum(score) / len(score) if score else None for score in scores]


def _both(first: Present, second: Present) -> tuple[list[int], tuple[Tensor, Tensor]]:
    common = np.intersect1d(first[0].numpy(), second[0].numpy(), assume_unique=True)
    picked = tuple(
        vectors[torch.from_numpy(np.searchsorted(rows.numpy(), common))] for rows, vectors in (first, second)
    )
    return common.tolist(), (picked[0], picked[1])


def _nearest(vectors: Tensor, chosen: Tensor, count: int) -> Tensor:
    """Positions in ``chosen`` of each row's ``count`` nearest, itself excluded; ties go to the earlier position."""
    whole = torch.round(vectors.double() * GRID)
    reference = whole[chosen]
    position = torch.arange(len(chosen))
    found: list[Tensor] = []
    for start in range(0, len(whole), CHUNK_ROWS):
        rows = torch.arange(start, min(start + CHUNK_ROWS, len(whole)))
        similarity = (whole[rows] @ reference.T).long()
        ranked = similarity * len(chosen) + (len(chosen) - 1 - position)
        ranked[rows[:, None] == chosen[None]] = torch.iinfo(torch.int64).min
        found.append(ranked.topk(count, dim=1).indices)
    return torch.cat(found)
