"""When two clips are nearly the same: their pictures are, at each of the times that a signature keeps.

Being near asks it of every time. Buckets and the test before it use the mean of the pictures: where all are near, so is
their mean, because a mean of differences is no longer than the mean of their lengths.
"""

import numpy as np
import numpy.typing as npt

from mm_assets.modalities.image import nearness as pictures
from mm_assets.modalities.image.signature_format import STEPS
from mm_assets.modalities.projections import cells
from mm_assets.modalities.video.signature_format import PARTS

COLUMN = "video_signature"
NUM_BYTES = PARTS * pictures.NUM_BYTES
NUM_TABLES, MAX_DEPTH = pictures.NUM_TABLES, pictures.MAX_DEPTH

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


def parse(data: npt.NDArray[np.uint8]) -> Floats:
    """Rows of ``NUM_BYTES`` as signatures [N, PARTS, values of a picture]."""
    flat = np.ascontiguousarray(data).reshape(len(data) * PARTS, pictures.NUM_BYTES)
    return pictures.parse(flat).reshape(len(data), PARTS, -1)


def outlines(values: Floats) -> Floats:
    """Of the mean of the pictures the frequencies that buckets are made from, and how much a shift changes it."""
    kept = np.append(pictures.bucketed(), pictures.SIZE)
    # One part after the other, so that the sum does not depend on how numpy orders additions.
    total = values[:, 0, kept].astype(np.float64)
    for part in range(1, PARTS):
        total += values[:, part, kept]
    return (total / PARTS).astype(np.float32)


def components(outline: Floats, *, table: int, first: int, last: int) -> npt.NDArray[np.int64]:
    """What outlines in one bucket of a table share."""
    return cells(np.round(outline[:, :-1]), pictures.CELL, table=table, first=first, last=last)


def may_be_near(left: Floats, right: Floats) -> Bools:
    """False for pairs of outlines whose clips are not near."""
    edges = np.minimum(left[:, -1], right[:, -1]).astype(np.float64)
    # Quarters of whole numbers: their squares sum exactly in float64, in any order.
    difference = left[:, :-1].astype(np.float64) - right[:, :-1]
    allowed = pictures.FAR * (pictures.FAR_BASE * STEPS + edges)
    return np.einsum("nf,nf->n", difference, difference) <= allowed**2


def are_near(left: Floats, right: Floats) -> Bools:
    """For each pair of rows whether they are nearly the same clip; symmetric."""
    result = np.ones(len(left), np.bool_)
    for part in range(PARTS):
        rows = np.flatnonzero(result)
        result[rows] = pictures.are_near(left[rows, part], right[rows, part])
    return result
