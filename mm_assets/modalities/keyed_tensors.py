"""Tensors of the bootstrap encoder, derived from SHAKE-256 of their names and from no random generator."""

import hashlib
import math

import numpy as np
import numpy.typing as npt

MULTIPLIER_LIMIT = 1 << 31


def signs(name: str, *shape: int) -> npt.NDArray[np.int8]:
    """+1 and -1 only. Source: Achlioptas 2003, "Database-friendly random projections"."""
    count = math.prod(shape)
    bits = np.unpackbits(np.frombuffer(_stream(name, -(-count // 8)), np.uint8), count=count)
    return (bits.astype(np.int8) * 2 - 1).reshape(shape)


def multipliers(name: str, *shape: int) -> npt.NDArray[np.int64]:
    """Odd numbers below ``MULTIPLIER_LIMIT``, for hashing."""
    count = math.prod(shape)
    words = np.frombuffer(_stream(name, 4 * count), "<u4").astype(np.int64)
    return (words % MULTIPLIER_LIMIT | 1).reshape(shape)


def _stream(name: str, num_bytes: int) -> bytes:
    return hashlib.shake_256(f"mm_assets bootstrap encoder 1: {name}".encode()).digest(num_bytes)
