"""What the plan and those who follow it must agree on: which rows are trained on, and the tokens of every sample."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mm_assets.modalities.parts import PARTS, Parts
from mm_assets.modalities.table import MODALITIES, NAMES, aspect
from mm_assets.store.tables import read_parquet

#: Tokens that a sample has besides those of its modalities.
CLS_TOKENS = 1
#: By modality the column that says how long its tensor is; presence where all are equally long.
LENGTH_COLUMNS = {name: row.length_column or f"has_{name}" for name, row in MODALITIES.items()}
#: By modality the column of a plan with its tokens.
TOKEN_COLUMNS = {name: f"{name}_tokens" for name in NAMES}


def train_rows(samples: pa.Table) -> npt.NDArray[np.int64]:
    """Row numbers of the samples a plan covers: selected, and in the training split."""
    return np.flatnonzero(train_mask(samples))


def train_mask(samples: pa.Table | pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Which samples a plan covers, from their columns ``selected`` and ``split``."""
    is_train = pc.call_function("equal", [samples["split"], "train"])
    is_planned = pc.call_function("and", [samples["selected"], is_train])
    return pc.fill_null(is_planned, False).to_numpy(zero_copy_only=False)


def read_samples(path: Path, columns: Sequence[str]) -> pa.Table:
    """Columns of a release's ``samples.parquet``, and its parts where one of its samples is not plain."""
    has_parts = PARTS in pq.read_schema(path).names
    return read_parquet(path, [*columns, PARTS] if has_parts else list(columns))


def part_tokens(
    parts: Parts, shape: Mapping[str, int], pack_tokens: int, *, known: Sequence[str] = NAMES
) -> list[tuple[str, int]]:
    """Modality and tokens of the parts that a pack has room for, in reading order: the first ones, at least one.

    Parts of a modality that is not ``known`` have no tokens.
    """
    kept: list[tuple[str, int]] = []
    room = pack_tokens - CLS_TOKENS
    for modality, length in parts:
        num_tokens = aspect(modality, "tokens").count(length, shape) if modality in known else 0
        if kept and num_tokens > room:
            break
        kept.append((modality, num_tokens))
        room -= num_tokens
    return kept
