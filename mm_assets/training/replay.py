"""Pieces of a finished training again: from one checkpoint to the next, with the inputs that the model names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm_assets.identity.canonical import Json, canonical_json, to_json
from mm_assets.store.action import Action
from mm_assets.store.job import Job
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store
from mm_assets.training.chain import CheckpointRecord, read_record, step_name
from mm_assets.training.lanes import world_size_of
from mm_assets.training.prepare import prepare_job
from mm_assets.training.processes import run_processes


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


def segments_of(store: Store, model: Manifest) -> list[Segment]:
    """The segments of a model, in order."""
    listed = json.loads(store.get_bytes(model.output("checkpoints.json").digest))["checkpoints"]
    records = [
        CheckpointRecord.model_validate({name: value for name, value in entry.items() if name != "record"})
        for entry in listed
    ]
    return [Segment(start=start, end=end) for start, end in zip([None, *records], records, strict=False)]


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
) -> Again:
    """Trains one segment again.

    Args:
        store: Holds the checkpoint it starts from.
        job: What ``prepare_replay`` gave.
        segment: One of the model's.
        folder: An empty one for its files.
        environment: That of this machine.
        world_size: Processes; a divisor of the lanes.

    Raises:
        StageError: a process failed.
    """
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir()
    changed: dict[str, Any] = {"environment": dict(environment), "last_step": segment.end.step, "log_every": 1}
    if segment.start is not None:
        state = store.fetch(segment.start.state, folder, "start.safetensors")
        changed |= {"first_step": segment.start.step, "state": str(state), "previous_record": segment.start.digest}
    path = folder / "job.json"
    path.write_text(json.dumps({**job, **changed}), encoding="utf-8")
    size = world_size_of({"world_size": world_size}, job["num_lanes"])
    run_processes(path, world_size=size, on_poll=lambda: None)
    record = read_record((checkpoints / f"{step_name(segment.end.step)}.json").read_bytes())
    return Again(record=record, folder=checkpoints)
