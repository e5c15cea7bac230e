"""Signatures searched generation by generation, without a release around them."""

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mm_assets.release.generations import Generation, write_generation
from mm_assets.release.near_search import search_first, search_further


def near_groups(
    signatures: npt.NDArray[np.uint8], nearness: Any, *, added: Sequence[int] = ()
) -> npt.NDArray[np.int64]:
    """For every row the smallest row of its group: rows connected by pairs that are near.

    Args:
        signatures: [rows, bytes], as the modality's ``nearness`` describes them.
        nearness: That aspect.
        added: The first row of every further generation.
    """
    leader = np.zeros(0, np.int64)
    lineage: list[Generation] = []
    depth = None
    bounds = [0, *added, len(signatures)]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        for first, end in zip(bounds, bounds[1:], strict=False):
            if first == end:
                continue
            new = write_generation(
                np.arange(first, end), signatures[first:end].__getitem__, nearness, Path(folder) / str(first),
                first=first, pool=pool,
            )  # fmt: skip
            if depth is None:
                leader, depth = search_first(new, nearness, pool, buckets=1)
            else:
                leader = search_further(lineage, leader, new, nearness, pool, depth=depth)
            lineage.append(new)
    return leader
