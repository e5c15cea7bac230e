"""When two pictures are nearly the same: their signatures differ by less than small shifts and scalings explain.

A crop by one pixel moves every edge, and a picture with many edges then differs more than two similar pictures with
few. The distance is therefore what is left after the best shift and scaling of up to ``MAX_SHIFT`` was taken away,
and it may be larger where a picture has more edges. Both limits were chosen from measured distances
(docs/decisions/0018-near-duplicates.md).
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from mm_assets.modalities.image.signature_format import CHROMA, LUMA, SIDE, SIZE, STEPS
from mm_assets.modalities.projections import cells, product

COLUMN = "image_signature"
NUM_BYTES = 2 * SIZE
NUM_TABLES, MAX_DEPTH = 24, 32
#: Pairs below ``BASE + PER_EDGE * edges`` are near; in units of root-mean-square difference of 8-bit values.
BASE, PER_EDGE = 2.8, 0.7
#: Before any shift is taken away, pairs beyond ``FAR * (FAR_BASE + edges)`` are not near.
FAR, FAR_BASE = 1.2, 4.0
#: Of the edges of the picture at ``SIDE`` pixels, about 1.5 pixels of a picture of 72.
MAX_SHIFT = 1.25
#: Frequencies that buckets are made from; higher ones move most under a crop.
BUCKET_LUMA, BUCKET_CHROMA = 5, 3
CELL = 50 * STEPS
#: Keeps a picture without edges from being explained by shifts of any size.
RIDGE = float(STEPS**2)
#: Signatures whose edges are computed at a time.
CHUNK = 1 << 12

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def parse(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Rows of ``NUM_BYTES`` as signatures, with how much a shift by a pixel changes the picture as the last column."""
    stored = np.ascontiguousarray(data).view("<i2")
    values = np.empty((len(stored), SIZE + 1), np.float32)
    values[:, :SIZE] = stored
    for start in range(0, len(values), CHUNK):
        part = values[start : start + CHUNK]
        part[:, SIZE] = _edges(part[:, :SIZE].astype(np.float64))
    return values


def outlines(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """The frequencies that buckets are made from, and the last column of ``values`` in two halves."""
    edges = np.ascontiguousarray(values[:, SIZE]).view(np.int16).reshape(-1, 2)
    return np.concatenate([values[:, bucketed()].astype(np.int16), edges], axis=1)


def components(outline: npt.NDArray[np.int16], *, table: int, first: int, last: int) -> npt.NDArray[np.int64]:
    """What outlines in one bucket of a table share."""
    return cells(outline[:, :-2].astype(np.float32), CELL, table=table, first=first, last=last)


def may_be_near(left: npt.NDArray[np.int16], right: npt.NDArray[np.int16]) -> Bools:
    """False for pairs of outlines whose pictures are not near: some frequencies alone are too far apart."""
    edges = np.minimum(_edges_of(left), _edges_of(right))
    difference = left[:, :-2].astype(np.float32)
    difference -= right[:, :-2]
    return np.einsum("nf,nf->n", difference, difference) <= (FAR * (FAR_BASE * STEPS + edges)) ** 2


def _edges_of(outline: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(outline[:, -2:]).view(np.float32)[:, 0]


def are_near(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> Bools:
    """For each pair of rows whether they are nearly the same picture; symmetric."""
    edges = np.minimum(left[:, SIZE], right[:, SIZE])
    # Whole numbers, and by Parseval's theorem their squares sum to less than 2 ** 24: exact in any order of summation.
    difference = (left - right)[:, :SIZE]
    result = np.einsum("nf,nf->n", difference, difference) <= (FAR * (FAR_BASE * STEPS + edges)) ** 2
    rows = np.flatnonzero(result)
    if len(rows):
        rest = _unexplained(left[rows, :SIZE].astype(np.float64), right[rows, :SIZE].astype(np.float64))
        result[rows] = rest <= BASE * STEPS + PER_EDGE * edges[rows]
    return result


def _unexplained(left: Floats, right: Floats) -> Floats:
    """The distance that is left after the best shift and scaling of one picture."""
    tangents_NKF = (_tangents(left) + _tangents(right)) / 2
    difference_NF = right - left
    gram_NKK = np.einsum("nkf,nlf->nkl", tangents_NKF, tangents_NKF) + RIDGE * np.eye(4)
    along_NK = np.einsum("nkf,nf->nk", tangents_NKF, difference_NF)
    amount_NK = np.clip(np.linalg.solve(gram_NKK, along_NK[:, :, None])[:, :, 0], -MAX_SHIFT, MAX_SHIFT)
    rest_NF = difference_NF - np.einsum("nk,nkf->nf", amount_NK, tangents_NKF)
    return np.sqrt(np.einsum("nf,nf->n", rest_NF, rest_NF))


def _edges(values: Floats) -> Floats:
    """How much a shift by one pixel changes a picture."""
    squares = np.zeros(len(values))
    shift, _ = _moves()
    for flat, count in _channels(values):
        rows_NVU = flat.reshape(-1, count, count)
        for lines in (rows_NVU, rows_NVU.swapaxes(1, 2)):
            moved = product(lines.reshape(-1, count), shift[:count, :count].T).reshape(len(values), -1)
            squares += np.einsum("nf,nf->n", moved, moved)
    return np.sqrt(squares)


def _channels(values: Floats) -> list[tuple[Floats, int]]:
    """The values of luma and of both chroma channels, each with its number of frequencies per axis."""
    chroma = [LUMA * LUMA + index * CHROMA * CHROMA for index in (0, 1)]
    return [(values[:, : LUMA * LUMA], LUMA), *((values[:, at : at + CHROMA * CHROMA], CHROMA) for at in chroma)]


def _tangents(values: Floats) -> Floats:
    """Changes of the signature by a shift and a scaling along each axis: [N, 4, F], shifts first."""
    shift, scale = _moves()
    moved: list[list[Floats]] = [[], [], [], []]
    for flat, count in _channels(values):
        channel_NVU = flat.reshape(-1, count, count)
        for index, matrix in enumerate((shift, scale)):
            kept = matrix[:count, :count]
            across = product(channel_NVU.reshape(-1, count), kept.T).reshape(flat.shape)
            down = np.einsum("wv,nvu->nwu", kept, channel_NVU).reshape(flat.shape)
            moved[2 * index].append(across)
            moved[2 * index + 1].append(down)
    return np.stack([np.concatenate(part, axis=1) for part in moved], axis=1)


@cache
def _moves() -> tuple[Floats, Floats]:
    """Matrices on the frequencies of one axis: a shift by one pixel, and a stretch by one pixel at both ends."""
    place = np.arange(SIDE) + 0.5
    number = np.arange(LUMA)[:, None]
    norm = np.sqrt(np.where(number == 0, SIDE, SIDE / 2))
    waves = np.cos(np.pi * number * place / SIDE) / norm
    slopes = -(np.pi * number / SIDE) * np.sin(np.pi * number * place / SIDE) / norm
    from_middle = (place - SIDE / 2) / (SIDE / 2)
    return waves @ slopes.T, waves @ (slopes * from_middle).T


@cache
def bucketed() -> npt.NDArray[np.int64]:
    """Columns of a parsed signature that buckets are made from."""
    luma = np.arange(LUMA * LUMA).reshape(LUMA, LUMA)[:BUCKET_LUMA, :BUCKET_LUMA]
    chroma = np.arange(CHROMA * CHROMA).reshape(CHROMA, CHROMA)[:BUCKET_CHROMA, :BUCKET_CHROMA]
    first = LUMA * LUMA
    return np.concatenate([luma.ravel(), first + chroma.ravel(), first + CHROMA**2 + chroma.ravel()])
