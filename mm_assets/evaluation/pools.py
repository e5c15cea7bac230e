"""The pools that retrieval searches: which samples they hold, and which of those are the same thing."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mm_assets.batching.samples import ReleaseReader
from mm_assets.evaluation.config import EvaluationConfig
from mm_assets.evaluation.retrieval import DIRECTIONS, Recall, measure_recall
from mm_assets.evaluation.rows import Row, keyed_subset
from mm_assets.identity.canonical import digest_bytes


def measure_retrieval(
    reader: ReleaseReader,
    rows: Sequence[Row],
    embeddings: Mapping[str, NDArray[np.float32]],
    config: EvaluationConfig,
) -> dict[str, Recall]:
    """Recall of every direction, such as ``image_to_text``.

    Args:
        reader: Reads the samples, to see which of them have identical content.
        rows: The samples of the split.
        embeddings: Unit vectors of ``rows`` by modality; rows without the modality are not read.
        config: Limits the pool.
    """
    scores: dict[str, Recall] = {}
    for asked, answered in DIRECTIONS:
        both = [index for index, row in enumerate(rows) if {asked, answered} <= set(row.modalities)]
        picked = keyed_subset(
            [rows[index] for index in both], config.max_retrieval_pool, "retrieval", *sorted((asked, answered))
        )
        indices = [both[position] for position in picked]
        keys = [thing_keys(reader, rows[index], answered) for index in indices]
        scores[f"{asked}_to_{answered}"] = measure_recall(
            embeddings[asked][indices] if indices else np.zeros((0, 1), np.float32),
            embeddings[answered][indices] if indices else np.zeros((0, 1), np.float32),
            keys,
        )
    return scores


def thing_keys(reader: ReleaseReader, row: Row, modality: str) -> set[str]:
    """What a sample counts as: its group if it has one, and the content of its answer."""
    (sample,) = reader.read([row.row])
    content = digest_bytes(np.ascontiguousarray(sample.tensors[modality]).tobytes())
    return {content} if row.group is None else {content, f"group {row.group}"}
