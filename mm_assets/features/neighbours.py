"""Cross-modal coherence, from a shard's embeddings. It depends on the set of rows, not on their order."""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from mm_assets.features.config import EncoderConfig
from mm_assets.modalities.table import NAMES

#: Embeddings are rounded to this grid before they are compared: sums of 64 products stay whole numbers.
GRID = 127
CHUNK_ROWS = 1024
#: One modality's embeddings: rows that have it (ascending) and their vectors [rows, dim].
Present = tuple[Tensor, Tensor]


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
