"""The device that a stage computes on: what its resources asked for, and nothing else that happens to be there."""

from collections.abc import Mapping
from typing import Any

import torch

from mm_assets.errors import StageError

ACCELERATORS = "accelerators"
#: Processes beside each rank that read ahead.
WORKERS = "num_workers"


def num_accelerators(placement: Mapping[str, Any]) -> int:
    """How many accelerators a job was given."""
    return int(str(placement.get(ACCELERATORS, 0)))


def device_of(stage: str, placement: Mapping[str, Any]) -> torch.device:
    """The device of a stage that uses one accelerator at most.

    Raises:
        StageError: an accelerator is missing, or would stay idle.
    """
    count = num_accelerators(placement)
    if count > 1:
        raise StageError(
            f"{stage}: {count - 1} of its accelerators would stay idle: expected 1, got {count}. Correct accelerators "
            "of this asset in resources.yaml, or in the placement of the release's configuration."
        )
    return rank_device(stage, count, rank=0)


def rank_device(stage: str, count: int, *, rank: int) -> torch.device:
    """The device of one process of several: the CPU where no accelerator was asked for, else the one of its number.

    Raises:
        StageError: an accelerator is missing.
    """
    if not count:
        return torch.device("cpu")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found < count:
        raise StageError(
            f"{stage}: accelerators are missing: expected {count}, as its resources ask for, got {found}. Run it where "
            "they are, with an image whose torch is built for CUDA, or ask for none."
        )
    return torch.device("cuda", rank)
