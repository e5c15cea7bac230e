"""What one process of a training run computes: a network and the plan's batches, trained to the plan's end.

It reads local files only: no store, no credentials. ``job`` is what ``prepare_job`` gave.
"""

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from pydantic import TypeAdapter
from torch import distributed

from mm_assets.batching.collate import layout_of
from mm_assets.batching.loader import PlanLoader
from mm_assets.batching.plan_file import PlanFile
from mm_assets.batching.samples import LOADER_COLUMNS, LocalReader
from mm_assets.modalities.device import ACCELERATORS, WORKERS, rank_device
from mm_assets.store.tables import read_parquet
from mm_assets.training.config import TrainingConfig
from mm_assets.training.loop import OnStep, Run, train
from mm_assets.training.network import build_network
from mm_assets.training.objectives import class_weights
from mm_assets.training.strict import set_strict, verify_environment


def run_rank(job: dict[str, Any], folder: Path, on_step: OnStep) -> None:
    """Trains; rank 0 leaves the checkpoints in ``folder``.

    Raises:
        StageError: a loss or gradient is not finite, or this is not the environment the run was resolved for.
    """
    config = read_config(job["training"])
    set_strict(config.threads_per_rank)
    verify_environment(job["environment"])
    device = rank_device("model", job[ACCELERATORS], rank=distributed.get_rank() if distributed.is_initialized() else 0)
    torch.manual_seed(job["seed"])
    # Made on the CPU: the weights that a run begins with are the same on every device.
    network = build_network(job["config"]).to(device)
    run = Run(
        config=config,
        seed=job["seed"],
        num_lanes=job["num_lanes"],
        run=job["run"],
        class_weights_K=class_weights(job["class_counts"], config.loss.class_balance).to(device),
        folder=folder,
        first_step=job["first_step"],
        last_step=job["last_step"],
        state=Path(job["state"]) if job["state"] else None,
        previous_record=job["previous_record"],
        num_workers=job[WORKERS],
    )
    train(run, network, partial(open_loader, job), on_step)


def open_loader(job: dict[str, Any]) -> PlanLoader:
    """The plan and the samples that the job names."""
    files = {shard: Path(path) for shard, path in job["tensors"]}
    samples: pa.Table = read_parquet(Path(job["samples"]), LOADER_COLUMNS)
    reader = LocalReader(samples, files.__getitem__)
    class_ids = {label: index for index, label in enumerate(job["config"]["classes"])}
    return PlanLoader(PlanFile(Path(job["plan"])), reader, layout_of(job["config"]["layout"]), class_ids)


def read_config(values: dict[str, Any]) -> TrainingConfig:
    """The configuration that ``to_json`` of one gave."""
    return TypeAdapter(TrainingConfig).validate_python(values)
