"""Pieces of a finished training again: from one checkpoint to the next, with the inputs that the model names."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import safe_open

from mm_assets.errors import ObjectCorruptError, UsageError
from mm_assets.identity.canonical import Json, canonical_json, to_json
from mm_assets.modalities.device import ACCELERATORS
from mm_assets.store.action import Action
from mm_assets.store.job import Job
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store
from mm_assets.training.chain import CheckpointRecord, read_record, step_name
from mm_assets.training.network import build_network
from mm_assets.training.prepare import prepare_job
from mm_assets.training.processes import run_processes

CHECKPOINT_SCHEMA, FIRST_SCHEMA = "mm.checkpoint/2", "mm.checkpoint/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """The steps between two checkpoints of a model.

    Attributes:
        start: The checkpoint before; None where it begins with untrained weights.
        end: The checkpoint that it leads to.
    """

    start: CheckpointRecord | None
    end: CheckpointRecord

    @property
    def first_step(self) -> int:
        """The first step of it, counted from 0."""
        return self.start.step if self.start else 0

    @property
    def last_step(self) -> int:
        """The last step of it."""
        return self.end.step - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Again:
    """What a segment led to this time: its record, and the folder with the files that the record names."""

    record: CheckpointRecord
    folder: Path

    @property
    def state(self) -> Path:
        """Weights and optimizer, safetensors."""
        return self.folder / f"{step_name(self.record.step)}.safetensors"

    def read_segment(self) -> dict[str, Any]:
        """``mm.segment/1``."""
        return json.loads((self.folder / f"{step_name(self.record.step)}.segment.json").read_bytes())


def checkpoints_of(store: Store, model: Manifest) -> list[CheckpointRecord]:
    """The records of a model's checkpoints, oldest first; at least one.

    Raises:
        UsageError: the first version trained it. ObjectCorruptError: its list of checkpoints is empty or unusable.
    """
    where = f"model {model.partition.path}"
    digest = model.output("checkpoints.json").digest
    listed = json.loads(store.get_bytes(digest))["checkpoints"]
    if any(entry.get("schema") == FIRST_SCHEMA for entry in listed):
        raise UsageError(
            f"{where}: was trained by the first version, whose checkpoints say too little: expected "
            f"{CHECKPOINT_SCHEMA}, got {FIRST_SCHEMA}. Train it again with "
            f"`mm run --release {model.partition.release}`."
        )
    try:
        records = [
            CheckpointRecord.model_validate({name: value for name, value in entry.items() if name != "record"})
            for entry in listed
        ]
    except ValidationError as error:
        raise ObjectCorruptError(
            f"{where}: checkpoints.json ({digest}) is unusable: {error.errors()[0]['msg']}. Train it again."
        ) from error
    if not records:
        raise ObjectCorruptError(
            f"{where}: checkpoints.json ({digest}) is empty: expected one checkpoint or more. Train it again."
        )
    return records


def segments_of(records: Sequence[CheckpointRecord]) -> list[Segment]:
    """The segments that the checkpoints of a model end, in order."""
    return [Segment(start=start, end=end) for start, end in zip([None, *records], records, strict=False)]


def find_chain_problem(model: Manifest, records: Sequence[CheckpointRecord]) -> str | None:
    """Why the checkpoints do not form one chain that ends with the model's weights, or None if they do."""
    before: CheckpointRecord | None = None
    for record in records:
        expected = before.digest if before else None
        if record.previous != expected:
            return (
                f"the checkpoint of step {record.step} follows another one: expected {expected}, got {record.previous}"
            )
        if before is not None and (record.step <= before.step or record.run != before.run):
            return f"the checkpoint of step {record.step} is not of the training of the one before, step {before.step}"
        before = record
    weights = model.output("weights.safetensors").digest
    if records[-1].weights != weights:
        return f"the last one has other weights than the model: expected {weights}, got {records[-1].weights}"
    return None


def find_other_shape(store: Store, model: Manifest, job: Mapping[str, Any], folder: Path) -> str | None:
    """The first tensor that the code of now gives another shape than the model has, or None."""
    network = build_network(job["config"])
    made = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    path = store.fetch(model.output("weights.safetensors").digest, folder, "weights.safetensors")
    with safe_open(path, "np") as weights:
        kept = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}
    for name in sorted({*made, *kept}):
        if made.get(name) != kept.get(name):
            return f"{name}: expected shape {kept.get(name)}, got {made.get(name)}"
    return None


def require_world_size(world_size: int, num_lanes: int) -> None:
    """Refuses a number of processes that the lanes cannot be dealt to.

    Raises:
        UsageError: it does not divide the lanes.
    """
    if world_size < 1 or num_lanes % world_size:
        raise UsageError(
            f"--world-size {world_size}: does not divide the lanes of the training: expected a power of two up to "
            f"{num_lanes}, got {world_size}. Name another one."
        )


def prepare_replay(store: Store, model: Manifest, folder: Path) -> dict[str, Any]:
    """The job of the model's training, from the objects that its manifest names, verified.

    Raises:
        ObjectMissingError: an input does not exist. ObjectCorruptError: it has other bytes.
    """
    action = Action(
        asset=model.asset,
        code=model.code,
        params=model.params,
        environment=model.environment,
        inputs=tuple(model.inputs),
    )
    return prepare_job(Job(store=store, action=action, workdir=folder))


def has_config(store: Store, model: Manifest, job: Mapping[str, Any]) -> bool:
    """Whether the network that the job describes is the model's."""
    return canonical_json(to_json(job["config"])) == store.get_bytes(model.output("config.json").digest)


def run_segment(
    store: Store,
    job: Mapping[str, Any],
    segment: Segment,
    folder: Path,
    *,
    environment: Mapping[str, Json],
    world_size: int,
    accelerators: int = 0,
) -> Again:
    """Trains one segment again.

    Args:
        store: Holds the checkpoint it starts from.
        job: What ``prepare_replay`` gave.
        segment: One of the model's.
        folder: An empty one for its files.
        environment: That of this machine.
        world_size: Processes, as ``require_world_size`` lets through.
        accelerators: As many as there are processes, or none.

    Raises:
        StageError: a process failed.
    """
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir()
    changed: dict[str, Any] = {"environment": dict(environment), "last_step": segment.end.step, "log_every": 1}
    changed[ACCELERATORS] = accelerators
    if segment.start is not None:
        state = store.fetch(segment.start.state, folder, "start.safetensors")
        changed |= {"first_step": segment.start.step, "state": str(state), "previous_record": segment.start.digest}
    path = folder / "job.json"
    path.write_text(json.dumps({**job, **changed}), encoding="utf-8")
    run_processes(path, world_size=world_size, accelerators=accelerators, on_poll=lambda: None)
    record = read_record((checkpoints / f"{step_name(segment.end.step)}.json").read_bytes())
    return Again(record=record, folder=checkpoints)
