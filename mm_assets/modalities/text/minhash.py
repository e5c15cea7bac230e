"""MinHash of a text: the share of equal positions of two hashes estimates how many character shingles they share."""

import numpy as np
import numpy.typing as npt

SHINGLE_CHARS = 4
NUM_HASHES = 16

Words = npt.NDArray[np.uint64]


def minhash(normalised: str) -> str | None:
    """128 hex digits, 16 hashes of 32 bits; None for an empty text.

    A text shorter than a shingle is one shingle, padded with zeros.

    Source: Broder 1997, "On the resemblance and containment of documents".
    """
    if not normalised:
        return None
    codes = np.frombuffer(normalised.encode("utf-32-le"), dtype="<u4").astype(np.uint64)
    if len(codes) < SHINGLE_CHARS:
        codes = np.pad(codes, (0, SHINGLE_CHARS - len(codes)))
    shingles = np.zeros(len(codes) - SHINGLE_CHARS + 1, np.uint64)
    for position in range(SHINGLE_CHARS):
        shingles = mix(shingles ^ codes[position : position + len(shingles)])
    smallest = np.array([mix(shingles ^ seed).min() for seed in _SEEDS])
    return (smallest >> np.uint64(32)).astype(">u4").tobytes().hex()


def mix(words: Words) -> Words:
    """A bijection of 64-bit words. Source: SplitMix64, Steele et al. 2014."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


_SEEDS = mix(np.arange(1, NUM_HASHES + 1, dtype=np.uint64) << np.uint64(32))
