"""What a training run is given: files of the plan's samples, and the job that names them and says what to train.

Class order, token layout and everything else that decides a byte of the model is decided here, once for all ranks.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mm_assets.batching.rows import LENGTH_COLUMNS, read_samples, train_rows
from mm_assets.batching.samples import COLUMNS, TensorFile, tensor_digests
from mm_assets.errors import StageError
from mm_assets.identity.canonical import Json, to_json
from mm_assets.modalities.device import ACCELERATORS, WORKERS
from mm_assets.modalities.parts import PARTS
from mm_assets.modalities.table import CAUSAL, MODALITIES, aspect
from mm_assets.store.job import Job
from mm_assets.training.spec import training_spec


def prepare_job(task: Job) -> dict[str, Any]:
    """Everything a rank needs, as files in the working folder and the job that names them."""
    frozen = task.fetch("dataset_release", "samples.parquet")
    samples = read_samples(frozen, COLUMNS)
    tensors = _fetch_tensors(task, samples)
    rows = train_rows(samples)
    layout = _layout(task, tensors, _trained(samples, rows)) | _places(samples)
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
        "environment": to_json(task.environment),
        "num_lanes": _plan(task)["num_lanes"],
        "config": config,
        "class_counts": [labels[label] for label in classes],
        "num_samples": len(rows),
        "plan": str(task.fetch("batch_plan", "plan.parquet")),
        "samples": str(frozen),
        "tensors": [[shard, str(path)] for shard, path in sorted(tensors.items())],
        ACCELERATORS: 0,
        WORKERS: 0,
        "first_step": 0,
        "last_step": None,
        "state": None,
        "previous_record": None,
    }


def _fetch_tensors(task: Job, samples: pa.Table) -> dict[int, Path]:
    """The tensor files of the shards that hold a sample of the plan."""
    used = sorted(set(samples["shard"].take(pa.array(train_rows(samples))).to_pylist()))
    digests = tensor_digests(task)
    return {shard: task.store.fetch(digests[shard], task.workdir / "inputs") for shard in used}


def _trained(samples: pa.Table, rows: npt.NDArray[np.int64]) -> list[str]:
    """The modalities that a model of these rows has parameters for: of the optional ones those that occur."""
    lengths = {name: samples[column].take(pa.array(rows)) for name, column in LENGTH_COLUMNS.items()}
    return [
        name for name, row in MODALITIES.items() if not row.is_optional or any(filter(None, lengths[name].to_pylist()))
    ]


def _layout(task: Job, tensors: Mapping[int, Path], modalities: Sequence[str]) -> dict[str, Json]:
    """The token layout of these modalities, which all shards must share.

    Raises:
        StageError: shards were made with different feature parameters.
    """
    plan = _plan(task)
    names = sorted({name for modality in modalities for name in aspect(modality, "tokens").SHAPE})
    stored = [TensorFile(path).shape for path in tensors.values()]
    # A shard without a column of its own for a modality says nothing about its shape.
    shapes = {(name, shape[name]) for name in names for shape in stored if name in shape}
    made = dict(shapes)
    if len(made) != len(shapes):
        raise StageError(
            f"model: shards have tensors of different shapes: expected one, got {sorted(shapes)}. "
            "Compute the features of all of them with the same parameters."
        )
    return {"pack_tokens": plan["pack_tokens"], **{name: made.get(name, plan.get(name)) for name in names}}


def _places(samples: pa.Table) -> dict[str, Json]:
    """How many places the parts of training samples have; nothing where all are plain."""
    if PARTS not in samples.column_names:
        return {}
    parts = samples[PARTS].take(pa.array(train_rows(samples))).to_pylist()
    most = max((len(own) for own in parts if own is not None), default=0)
    return {"places": most} if most else {}


def _plan(task: Job) -> Mapping[str, Json]:
    plan = task.params["plan"]
    assert isinstance(plan, Mapping)
    return plan
