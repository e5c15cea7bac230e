"""When two texts are nearly the same: half of the hashes of their signatures are equal."""

import numpy as np
import numpy.typing as npt

from mm_assets.modalities.text.signature_format import SIZE

COLUMN = "text_signature"
NUM_BYTES = SIZE
#: Every table begins with other hashes, so that together they use all of them.
NUM_TABLES, MAX_DEPTH = 32, 12
#: Measured: docs/decisions/0018-near-duplicates.md.
NEAR_HASHES = 64
STRIDE = SIZE // NUM_TABLES

Bools = npt.NDArray[np.bool_]


def parse(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Rows of ``NUM_BYTES`` as signatures."""
    return np.ascontiguousarray(data)


def outlines(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """All hashes: none alone rules anything out."""
    return values


def components(outline: npt.NDArray[np.uint8], *, table: int, first: int, last: int) -> npt.NDArray[np.int64]:
    """What texts in one bucket of a table share."""
    places = (table * STRIDE + 11 * np.arange(first, last)) % SIZE
    return outline[:, places].astype(np.int64)


def may_be_near(left: npt.NDArray[np.uint8], right: npt.NDArray[np.uint8]) -> Bools:
    """The answer itself."""
    return are_near(left, right)


def are_near(left: npt.NDArray[np.uint8], right: npt.NDArray[np.uint8]) -> Bools:
    """For each pair of rows whether they are nearly the same text; symmetric."""
    return np.count_nonzero(left == right, axis=1) >= NEAR_HASHES
