"""Randomness that is keyed, never ambient."""

import hashlib

import numpy as np

from mm_assets.identity.canonical import canonical_json


def keyed_rng(*key: str | int) -> np.random.Generator:
    """A generator whose stream depends on ``key`` alone (Philox, keyed by the digest of the key)."""
    seed = hashlib.sha256(canonical_json(list(key))).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(seed, "big")))
