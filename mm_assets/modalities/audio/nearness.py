"""When two clips are nearly the same: their signatures differ by less than another encoding explains.

And by clearly less than two unrelated clips of one spectrum do, whose distance is that of their changes over time
together: recordings of noise differ by no more than copies of speech.
"""

import numpy as np
import numpy.typing as npt

from mm_assets.modalities.audio.signature_format import BANDS, PARTS, SIZE, STEPS_PER_DB
from mm_assets.modalities.projections import cells

COLUMN = "audio_signature"
NUM_BYTES = SIZE
NUM_TABLES, MAX_DEPTH = 24, 32
#: Root-mean-square difference in decibels. Measured: docs/decisions/0018-near-duplicates.md.
NEAR_DB = 6.0
#: Of the sum of both clips' changes over time, squared. Measured: unrelated noise has 0.79 to 1.39.
MAX_SHARE_OF_CHANGES = 0.5
EVERY, CELL = 5, 120

Bools = npt.NDArray[np.bool_]


def parse(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
    """Rows of ``NUM_BYTES`` as signatures."""
    return np.ascontiguousarray(data).view(np.int8)


def outlines(values: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    """Every ``EVERY``th level, from which buckets are made."""
    return values[:, ::EVERY].astype(np.float32)


def components(outline: npt.NDArray[np.float32], *, table: int, first: int, last: int) -> npt.NDArray[np.int64]:
    """What outlines in one bucket of a table share."""
    return cells(outline, CELL, table=table, first=first, last=last)


def may_be_near(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> Bools:
    """False for pairs of outlines whose clips are not near: some levels alone are too far apart."""
    difference = left - right
    return np.einsum("nf,nf->n", difference, difference) <= SIZE * (NEAR_DB * STEPS_PER_DB) ** 2


def are_near(left: npt.NDArray[np.int8], right: npt.NDArray[np.int8]) -> Bools:
    """For each pair of rows whether they are nearly the same clip; symmetric."""
    # Whole numbers below 2 ** 24: exact in float32 in any order of summation.
    difference = left.astype(np.float32) - right
    distance = np.einsum("nf,nf->n", difference, difference)
    result = distance <= SIZE * (NEAR_DB * STEPS_PER_DB) ** 2
    rows = np.flatnonzero(result)
    result[rows] = distance[rows] <= MAX_SHARE_OF_CHANGES * (_changes(left[rows]) + _changes(right[rows]))
    return result


def _changes(values: npt.NDArray[np.int8]) -> npt.NDArray[np.float64]:
    """Sums of squares of what bands differ from their own means over a clip."""
    levels_NPB = values.reshape(-1, PARTS, BANDS).astype(np.float64)
    # Whole numbers, divided once: the same in any order of summation.
    total_NB = levels_NPB.sum(1)
    return np.einsum("npb,npb->n", levels_NPB, levels_NPB) - np.einsum("nb,nb->n", total_NB, total_NB) / PARTS
