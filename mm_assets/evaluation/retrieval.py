"""Cross-modal retrieval: does the model place what belongs together next to each other?

Legend: N samples of the pool, D embedding dimensions. The pool holds the samples that have both modalities. A query
is answered by every sample that counts as the same thing: the sample itself, samples of its group (the same picture
named in another language), and samples whose answer is identical to its own (the same caption twice). Chance is what
a random order would reach with those same answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from mm_assets.modalities.table import NAMES

#: Asked and answered modality.
DIRECTIONS = tuple(permutations(NAMES, 2))
CUTOFFS = (1, 5, 10)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recall:
    """Recall at each of ``CUTOFFS`` over ``n`` queries and the chance level; None where ``n`` is 0."""

    recall: tuple[float | None, ...]
    chance: tuple[float | None, ...]
    n: int


def measure_recall(
    queries_ND: NDArray[np.float32], answers_ND: NDArray[np.float32], keys: Sequence[set[str]]
) -> Recall:
    """Recall of finding an answer of the same thing among the k nearest by cosine similarity.

    Args:
        queries_ND: Unit vectors of one modality.
        answers_ND: Unit vectors of the other modality, same samples.
        keys: Per sample what it is; two samples are the same thing when their sets share a key.
    """
    if not len(keys):
        none = (None,) * len(CUTOFFS)
        return Recall(recall=none, chance=none, n=0)
    same_NN = _same_thing(keys)
    # Not ``@``: it calls BLAS, whose sums depend on the number of threads and on the CPU's kernels.
    similarity_NN = np.einsum("nd,md->nm", queries_ND.astype(np.float64), answers_ND.astype(np.float64), optimize=False)
    ranks_N = first_hit_ranks(similarity_NN, same_NN)
    hits_N = same_NN.sum(axis=1)
    return Recall(
        recall=tuple(float(np.mean(ranks_N < k)) for k in CUTOFFS),
        chance=tuple(float(np.mean(chance_of_hit(hits_N, len(keys), k))) for k in CUTOFFS),
        n=len(keys),
    )


def first_hit_ranks(similarity_NN: NDArray[np.float64], same_NN: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many wrong answers come before the best right one, per query; a tie counts as before it."""
    best_N = np.where(same_NN, similarity_NN, -np.inf).max(axis=1)
    return ((similarity_NN >= best_N[:, None]) & ~same_NN).sum(axis=1)


def chance_of_hit(hits_N: NDArray[np.int64], pool: int, k: int) -> NDArray[np.float64]:
    """Probability that k of ``pool`` answers drawn without replacement hold at least one of the hits.

    1 - C(pool - hits, k) / C(pool, k), as a product so that nothing overflows.
    """
    drawn = np.arange(min(k, pool))
    miss = (pool - hits_N[:, None] - drawn) / (pool - drawn)
    return 1.0 - np.clip(miss, 0.0, 1.0).prod(axis=1)


def _same_thing(keys: Sequence[set[str]]) -> NDArray[np.bool_]:
    same_NN = np.eye(len(keys), dtype=np.bool_)
    holders: dict[str, list[int]] = {}
    for index, own in enumerate(keys):
        for key in own:
            holders.setdefault(key, []).append(index)
    for members in holders.values():
        if len(members) > 1:
            same_NN[np.ix_(members, members)] = True
    return same_NN
