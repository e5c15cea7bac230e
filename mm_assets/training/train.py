"""Computes ``model``: fetches what the plan needs, runs the ranks, keeps their checkpoints, collects the outputs."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors.torch import load

from mm_assets.batching.plan import train_rows
from mm_assets.batching.samples import COLUMNS, TensorFile, tensor_digests
from mm_assets.errors import StageError
from mm_assets.identity.canonical import Json, canonical_json, to_json
from mm_assets.modalities.table import CAUSAL, NAMES, aspect
from mm_assets.store.action import action_key
from mm_assets.store.commit import OutputFile, StageResult
from mm_assets.store.job import Job
from mm_assets.store.manifest import Output
from mm_assets.store.objects import Store
from mm_assets.store.tables import (
    JSON_TYPE,
    PARQUET_TYPE,
    SAFETENSORS_TYPE,
    read_parquet,
    table_of,
    write_parquet,
)
from mm_assets.training.chain import CheckpointRecord, step_name
from mm_assets.training.checkpoint import weights_file
from mm_assets.training.lanes import usable_world_size
from mm_assets.training.ledger import LEDGER
from mm_assets.training.loop import LOSSES
from mm_assets.training.processes import run_processes
from mm_assets.training.resume import Uploader, find_chain
from mm_assets.training.spec import training_spec

#: Steps between two lines of progress where the configuration does not say.
DEFAULT_LOG_EVERY = 10
METRICS = pa.schema(
    [
        pa.field("step", pa.int32(), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in (*LOSSES, "learning_rate", "gradient_norm")),
        pa.field("num_samples", pa.int32(), nullable=False),
    ]
)


def compute_model(task: Job) -> StageResult:
    """Trains a model; goes on from the last checkpoint of an attempt that was killed.

    Raises:
        StageError: a rank failed. NonDeterminismError: it reached other bits than an earlier attempt.
    """
    store, workdir, fingerprint = task.store, task.workdir, task.action.fingerprint
    job = _prepare(task)
    # A finished run that is computed again on purpose starts anew, and must meet its own checkpoints on the way.
    chain = [] if store.read_key(action_key(fingerprint)) else find_chain(store, fingerprint, run=job["run"])
    folder = workdir / "checkpoints"
    folder.mkdir()
    if chain:
        job |= _resumed(store, chain[-1], folder)
    path = workdir / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    uploader = Uploader(store=store, folder=folder, fingerprint=fingerprint, records=chain)
    world_size = usable_world_size(int(str(task.placement.get("world_size", 1))), job["num_lanes"])
    run_processes(path, world_size=world_size, on_poll=uploader.poll)
    if not uploader.records:
        raise StageError("model: the plan has no steps: nothing was trained.")
    return _collect(task, job, uploader.records)


def _prepare(task: Job) -> dict[str, Any]:
    """Everything a rank needs, as files in the working folder and the job that names them."""
    frozen = task.fetch("dataset_release", "samples.parquet")
    samples = read_parquet(frozen, COLUMNS)
    tensors = _fetch_tensors(task, samples)
    layout = _layout(task, tensors)
    rows = train_rows(samples)
    labels = Counter(label for label in samples["label"].take(pa.array(rows)).to_pylist() if label is not None)
    classes = sorted(labels)
    training = task.params["training"]
    assert isinstance(training, Mapping)
    config: dict[str, Json] = {
        "schema": "mm.model/1",
        "model": training["model"],
        "layout": layout,
        "classes": classes,
        "tokenizer": {name: value for causal in CAUSAL for name, value in aspect(causal, "tokens").TOKENIZER.items()},
    }
    return {
        "run": training_spec(task)["fingerprint"],
        "seed": task.params["seed"],
        "training": to_json(training),
        "log_every": task.placement.get("log_every", DEFAULT_LOG_EVERY),
        "environment": to_json(task.environment),
        "num_lanes": _plan(task)["num_lanes"],
        "config": config,
        "class_counts": [labels[label] for label in classes],
        "num_samples": len(rows),
        "plan": str(task.fetch("batch_plan", "plan.parquet")),
        "samples": str(frozen),
        "tensors": [[shard, str(path)] for shard, path in sorted(tensors.items())],
        "first_step": 0,
        "state": None,
        "previous_record": None,
    }


def _fetch_tensors(task: Job, samples: pa.Table) -> dict[int, Path]:
    """The tensor files of the shards that hold a sample of the plan."""
    used = sorted(set(samples["shard"].take(pa.array(train_rows(samples))).to_pylist()))
    digests = tensor_digests(task)
    return {shard: task.store.fetch(digests[shard], task.workdir / "inputs") for shard in used}


def _layout(task: Job, tensors: Mapping[int, Path]) -> dict[str, Json]:
    """The token layout, which all shards must share.

    Raises:
        StageError: shards were made with different feature parameters.
    """
    plan = _plan(task)
    names = sorted({name for modality in NAMES for name in aspect(modality, "tokens").SHAPE})
    stored = [TensorFile(path).shape for path in tensors.values()]
    shapes = {tuple((name, shape[name]) for name in names if name in shape) for shape in stored}
    if len(shapes) != 1:
        raise StageError(
            f"model: shards have tensors of different shapes: expected one, got {sorted(shapes)}. "
            "Compute the features of all of them with the same parameters."
        )
    made = dict(shapes.pop())
    return {"pack_tokens": plan["pack_tokens"], **{name: made.get(name, plan.get(name)) for name in names}}


def _resumed(store: Store, last: CheckpointRecord, folder: Path) -> dict[str, Any]:
    state = store.fetch(last.state, folder, f"{step_name(last.step)}.safetensors")
    return {"first_step": last.step, "state": str(state), "previous_record": last.digest}


def _collect(task: Job, job: dict[str, Any], records: list[CheckpointRecord]) -> StageResult:
    """The outputs, from the stored checkpoints alone: the same whether the run was interrupted or not."""
    store, workdir = task.store, task.workdir
    segments = [json.loads(store.get_bytes(record.segment)) for record in records]
    lanes = [entry for segment in segments for entry in segment["lanes"]]
    metrics = _metrics([step for segment in segments for step in segment["steps"]], lanes)
    ledger = table_of([{name: entry[name] for name in LEDGER.names} for entry in lanes], LEDGER)
    (workdir / "weights.safetensors").write_bytes(weights_file(load(store.get_bytes(records[-1].state))))
    chain = [record.model_dump(by_alias=True) | {"record": record.digest} for record in records]
    for name, value in {
        "config.json": job["config"],
        "spec.json": training_spec(task),
        "checkpoints.json": {"schema": "mm.checkpoints/1", "checkpoints": chain},
    }.items():
        (workdir / name).write_bytes(canonical_json(value))
    write_parquet(ledger, workdir / "ledger.parquet")
    write_parquet(table_of(metrics, METRICS), workdir / "metrics.parquet")
    files = (
        OutputFile(name="weights.safetensors", path=workdir / "weights.safetensors", media_type=SAFETENSORS_TYPE),
        *(
            OutputFile(name=name, path=workdir / name, media_type=JSON_TYPE)
            for name in ("config.json", "spec.json", "checkpoints.json")
        ),
        *(
            OutputFile(name=name, path=workdir / name, media_type=PARQUET_TYPE, num_rows=num_rows)
            for name, num_rows in (("ledger.parquet", len(ledger)), ("metrics.parquet", len(metrics)))
        ),
    )
    stats: dict[str, Json] = {
        "rows_in": job["num_samples"],
        "rows_out": sum(entry["num_samples"] for entry in lanes),
        "dead_letters": 0,
        "num_steps": len(metrics),
        "num_classes": len(job["config"]["classes"]),
        "first_loss": round(metrics[0]["loss"], 6),
        "last_loss": round(metrics[-1]["loss"], 6),
    }
    return StageResult(files=files, stats=stats, stored=_states(store, records))


def _states(store: Store, records: list[CheckpointRecord]) -> tuple[Output, ...]:
    """The checkpoints' states as outputs, so that whatever keeps the model keeps them."""
    return tuple(
        Output(
            name=f"checkpoints/{step_name(record.step)}.safetensors",
            digest=record.state,
            size_bytes=store.object_size(record.state) or 0,
            media_type=SAFETENSORS_TYPE,
        )
        for record in records
    )


def _metrics(steps: list[dict[str, Any]], lanes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per step the mean over the lanes that had samples."""
    active: dict[int, list[dict[str, Any]]] = {step["step"]: [] for step in steps}
    for entry in lanes:
        if entry["num_samples"]:
            active[entry["step"]].append(entry)
    return [
        step
        | {name: sum(entry[name] for entry in active[step["step"]]) / len(active[step["step"]]) for name in LOSSES}
        | {"num_samples": sum(entry["num_samples"] for entry in active[step["step"]])}
        for step in steps
    ]


def _plan(task: Job) -> Mapping[str, Json]:
    plan = task.params["plan"]
    assert isinstance(plan, Mapping)
    return plan
