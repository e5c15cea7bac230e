"""The outputs of a model, from the stored checkpoints alone: the same whether the run was interrupted or not."""

import json
from typing import Any

import pyarrow as pa
from safetensors.torch import load

from mm_assets.identity.canonical import Json, canonical_json
from mm_assets.store.commit import OutputFile, StageResult
from mm_assets.store.job import Job
from mm_assets.store.manifest import Output
from mm_assets.store.objects import Store
from mm_assets.store.tables import JSON_TYPE, PARQUET_TYPE, SAFETENSORS_TYPE, table_of, write_parquet
from mm_assets.training.chain import CheckpointRecord, step_name
from mm_assets.training.checkpoint import weights_file
from mm_assets.training.gradients import LOSSES
from mm_assets.training.ledger import LEDGER
from mm_assets.training.spec import training_spec

METRICS = pa.schema(
    [
        pa.field("step", pa.int32(), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in (*LOSSES, "learning_rate", "gradient_norm")),
        pa.field("num_samples", pa.int32(), nullable=False),
    ]
)


def collect_outputs(task: Job, job: dict[str, Any], records: list[CheckpointRecord]) -> StageResult:
    """Weights, configuration, spec, chain of checkpoints, ledger and metrics of a finished run.

    Args:
        task: The computation; files are written to its folder.
        job: What ``prepare_job`` gave.
        records: The checkpoints of the whole run, oldest first; at least one.
    """
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
    """Per step the mean over its samples, from the means of its lanes."""
    by_step: dict[int, list[dict[str, Any]]] = {step["step"]: [] for step in steps}
    for entry in lanes:
        by_step[entry["step"]].append(entry)
    metrics: list[dict[str, Any]] = []
    for step in steps:
        entries = by_step[step["step"]]
        num_samples = sum(entry["num_samples"] for entry in entries)
        means = {name: sum(entry[name] * entry["num_samples"] for entry in entries) / num_samples for name in LOSSES}
        metrics.append(step | means | {"num_samples": num_samples})
    return metrics
