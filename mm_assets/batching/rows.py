"""What the plan and those who follow it must agree on: which rows are trained on, and the tokens of every sample."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

#: Tokens that a sample has besides those of its modalities.
CLS_TOKENS = 1


def train_rows(samples: pa.Table) -> npt.NDArray[np.int64]:
    """Row numbers of the samples a plan covers: selected, and in the training split."""
    selected = samples["selected"].to_numpy(zero_copy_only=False).astype(bool)
    return np.flatnonzero(selected & (np.array(samples["split"].to_pylist()) == "train"))
