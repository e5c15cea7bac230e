"""Buckets for vectors of whole numbers: projections on fixed random directions, cut into cells of equal width.

Vectors that are close to each other, compared with the width, share most cells; others share few.

Source: p-stable hashing, Datar et al. 2004, "Locality-sensitive hashing scheme based on p-stable distributions".
"""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mm_assets.identity.randomness import keyed_rng

#: Directions have whole components up to about four times this, so that float32 products of int16 are exact.
DIRECTION_SCALE = 4.0

Ints = npt.NDArray[np.int64]


def cells(values_NF: npt.NDArray[np.float32], width: int, *, table: int, first: int, last: int) -> Ints:
    """Cell numbers [N, last - first] of components ``first`` to ``last`` of a table.

    Args:
        values_NF: Whole numbers; |values| x |directions|, summed, must stay below 2 ** 24 to be exact in float32.
        width: Of a cell, in units of the values.
        table: Number of the table; each has directions and offsets of its own.
        first: First component.
        last: Component after the last one.
    """
    directions_FD, offset_D = _directions(values_NF.shape[1], table)
    projected_ND = product(values_NF, directions_FD[:, first:last]).astype(np.int64)
    wide = round(width * DIRECTION_SCALE)
    return (projected_ND + (offset_D[first:last] * wide).astype(np.int64)) // wide


def product(values_NF: npt.NDArray[Any], matrix_FD: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``values_NF @ matrix_FD`` on the calling thread alone.

    Where callers have threads of their own, those of OpenBLAS made the same search take three times the CPU.
    """
    rows = max(1, SMALL_PRODUCT // matrix_FD.size)
    result = np.empty((len(values_NF), matrix_FD.shape[1]), np.result_type(values_NF, matrix_FD))
    for start in range(0, len(values_NF), rows):
        np.matmul(values_NF[start : start + rows], matrix_FD, out=result[start : start + rows])
    return result


#: OpenBLAS divides products of more multiplications than this (``GEMM_MULTITHREAD_THRESHOLD`` x 65,536).
SMALL_PRODUCT = 1 << 17
#: More than any table is ever deep.
MAX_COMPONENTS = 64


@cache
def _directions(num_values: int, table: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    rng = keyed_rng(0, "projections", num_values, table)
    directions_FD = np.round(rng.standard_normal((num_values, MAX_COMPONENTS)) * DIRECTION_SCALE).astype(np.float32)
    return directions_FD, rng.random(MAX_COMPONENTS)
