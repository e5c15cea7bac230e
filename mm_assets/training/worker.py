"""The program of one training process, alone or started by torchrun. It reads files only: no store, no credentials.

``job.json`` says what to do. Progress goes to stdout as JSON lines; an error that names its cause goes to
``error.txt``. When the launching process dies, its end of stdin closes and this process ends too.
"""

import argparse
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from pydantic import TypeAdapter
from torch import distributed

from mm_assets.batching.collate import layout_of
from mm_assets.batching.loader import PlanLoader
from mm_assets.batching.samples import COLUMNS, LocalReader
from mm_assets.errors import MmError
from mm_assets.store.tables import read_parquet
from mm_assets.training.config import TrainingConfig
from mm_assets.training.lanes import usable_world_size
from mm_assets.training.loop import Run, train
from mm_assets.training.network import build_network
from mm_assets.training.objectives import class_weights
from mm_assets.training.strict import set_strict, verify_environment


def main() -> int:
    """Runs the job named on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", type=Path)
    parser.add_argument("--distributed", action="store_true")
    arguments = parser.parse_args()
    threading.Thread(target=end_with_launcher, daemon=True).start()
    try:
        if arguments.distributed:
            distributed.init_process_group("gloo")
        _run(arguments.job)
    except MmError as error:
        (arguments.job.parent / "error.txt").write_text(str(error), encoding="utf-8")
        return 1
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
    return 0


def _run(path: Path) -> None:
    job: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    config = read_config(job["training"])
    set_strict(config.threads_per_rank)
    verify_environment(job["environment"])
    num_lanes: int = job["num_lanes"]
    if distributed.is_initialized():
        world_size = distributed.get_world_size()
        assert usable_world_size(world_size, num_lanes) == world_size
    torch.manual_seed(job["seed"])
    network = build_network(job["config"])
    run = Run(
        config=config,
        seed=job["seed"],
        num_lanes=num_lanes,
        run=job["run"],
        class_weights_K=class_weights(job["class_counts"], config.loss.class_balance),
        folder=path.parent / "checkpoints",
        first_step=job["first_step"],
        state=Path(job["state"]) if job["state"] else None,
        previous_record=job["previous_record"],
        log_every=job["log_every"],
    )
    train(run, network, _loader(job), _report)


def _loader(job: dict[str, Any]) -> PlanLoader:
    files = {shard: Path(path) for shard, path in job["tensors"]}
    samples: pa.Table = read_parquet(Path(job["samples"]), COLUMNS)
    reader = LocalReader(samples, files.__getitem__)
    class_ids = {label: index for index, label in enumerate(job["config"]["classes"])}
    return PlanLoader(read_parquet(Path(job["plan"])), reader, layout_of(job["config"]["layout"]), class_ids)


def read_config(values: dict[str, Any]) -> TrainingConfig:
    """The configuration that ``to_json`` of one gave."""
    return TypeAdapter(TrainingConfig).validate_python(values)


def _report(step: int, num_steps: int, loss: float) -> None:
    if not distributed.is_initialized() or distributed.get_rank() == 0:
        sys.stdout.write(json.dumps({"step": step, "num_steps": num_steps, "loss": loss}) + "\n")
        sys.stdout.flush()


def end_with_launcher() -> None:
    """Blocks until the other end of stdin is closed, then ends this process whatever it is doing."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
