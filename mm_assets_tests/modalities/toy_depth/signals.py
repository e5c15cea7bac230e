"""Signals of a depth profile."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mm_assets.identity.canonical import digest_bytes

COLUMNS = (("depth_mean", pa.float64()), ("depth_digest", pa.string()))
NUMBERS = ("depth_mean",)
FLAGS: tuple[str, ...] = ()


def measure(decoded: npt.NDArray[np.float32], config: object) -> dict[str, object]:
    """The columns for one profile."""
    del config
    return {"depth_mean": round(float(decoded.mean()), 6), "depth_digest": digest_bytes(decoded.tobytes())}
