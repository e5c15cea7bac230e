"""What the plan and those who follow it must agree on: which rows are trained on, and the tokens of every sample."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mm_assets.modalities.table import MODALITIES, NAMES

#: Tokens that a sample has besides those of its modalities.
CLS_TOKENS = 1
#: By modality the column that says how long its tensor is; presence where all are equally long.
LENGTH_COLUMNS = {name: row.length_column or f"has_{name}" for name, row in MODALITIES.items()}
#: By modality the column of a plan with its tokens.
TOKEN_COLUMNS = {name: f"{name}_tokens" for name in NAMES}


def train_rows(samples: pa.Table) -> npt.NDArray[np.int64]:
    """Row numbers of the samples a plan covers: selected, and in the training split."""
    selected = samples["selected"].to_numpy(zero_copy_only=False).astype(bool)
    return np.flatnonzero(selected & (np.array(samples["split"].to_pylist()) == "train"))
