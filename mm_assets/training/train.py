"""Computes ``model``: finds where an earlier attempt stopped, runs the ranks and keeps their checkpoints.

What is trained and what comes out of it is decided elsewhere (``prepare``, ``rank``, ``outputs``): nothing here can
change a byte, so nothing here is part of the model's code digest.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mm_assets.errors import StageError
from mm_assets.modalities.device import ACCELERATORS, WORKERS, num_accelerators
from mm_assets.store.action import action_key
from mm_assets.store.commit import StageResult
from mm_assets.store.job import Job
from mm_assets.store.objects import Store
from mm_assets.training.chain import CheckpointRecord, step_name
from mm_assets.training.lanes import num_workers, world_size_of
from mm_assets.training.outputs import collect_outputs
from mm_assets.training.prepare import prepare_job
from mm_assets.training.processes import run_processes
from mm_assets.training.resume import Uploader, find_chain

#: Steps between two lines of progress where the configuration does not say.
DEFAULT_LOG_EVERY = 10


def compute_model(task: Job) -> StageResult:
    """Trains a model; goes on from the last checkpoint of an attempt that was killed.

    Raises:
        StageError: a rank failed. NonDeterminismError: it reached other bits than an earlier attempt.
    """
    store, workdir, fingerprint = task.store, task.workdir, task.action.fingerprint
    plan = task.params["plan"]
    assert isinstance(plan, Mapping)
    world_size = world_size_of(task.placement, int(str(plan["num_lanes"])))
    accelerators = num_accelerators(task.placement)
    job: dict[str, Any] = prepare_job(task) | {
        ACCELERATORS: accelerators,
        WORKERS: num_workers(task.placement, world_size),
    }
    # A finished run that is computed again on purpose starts anew, and must meet its own checkpoints on the way.
    chain = [] if store.read_key(action_key(fingerprint)) else find_chain(store, fingerprint, run=job["run"])
    folder = workdir / "checkpoints"
    folder.mkdir()
    if chain:
        job |= _resumed(store, chain[-1], folder)
    path = workdir / "job.json"
    log_every = task.placement.get("log_every", DEFAULT_LOG_EVERY)
    path.write_text(json.dumps(job | {"log_every": log_every}), encoding="utf-8")
    uploader = Uploader(store=store, folder=folder, fingerprint=fingerprint, records=chain)
    run_processes(path, world_size=world_size, accelerators=accelerators, on_poll=uploader.poll)
    if not uploader.records:
        raise StageError("model: the plan has no steps: nothing was trained.")
    return collect_outputs(task, job, uploader.records)


def _resumed(store: Store, last: CheckpointRecord, folder: Path) -> dict[str, Any]:
    state = store.fetch(last.state, folder, f"{step_name(last.step)}.safetensors")
    return {"first_step": last.step, "state": str(state), "previous_record": last.digest}
