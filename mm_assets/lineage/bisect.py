"""Why two models differ: what they were made from, and the first step and tensor in which their trainings part.

Only what the store keeps is read; nothing is trained.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mm_assets.identity.canonical import Json
from mm_assets.lineage.records import find_model, flat
from mm_assets.scratch import scratch_folder
from mm_assets.store.action import read_objects
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store
from mm_assets.store.tables import read_parquet
from mm_assets.training.differences import differing_tensors, differing_values
from mm_assets.training.replay import Segment, segments_of

PLAN_COLUMNS = ["step", "lane", "pack", "slot", "id"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """Something that two models were made from, and that is not the same."""

    name: str
    first: Json
    second: Json


@dataclass(frozen=True, kw_only=True, slots=True)
class BisectReport:
    """Why two models differ.

    Attributes:
        first: Digest of one manifest.
        second: Digest of the other.
        is_equal: Whether their weights are the same bits.
        causes: What they were made from that differs: code, environment, parameters, objects that were read.
        parts: A sentence each: where the plans part, where the trainings do, and the first differing tensor.
        last_equal_step: Steps after which both still had the same state, by their checkpoints.
    """

    first: str
    second: str
    is_equal: bool
    causes: tuple[Cause, ...]
    parts: tuple[str, ...]
    last_equal_step: int


def bisect_models(store: Store, first: str, second: str) -> BisectReport:
    """Compares two models.

    Args:
        store: Holds both.
        first: A release, a manifest digest or ``production``.
        second: Another.

    Raises:
        UsageError: there is no such model.
    """
    (digest, left), (other, right) = find_model(store, first), find_model(store, second)
    segments = segments_of(store, left), segments_of(store, right)
    pairs = list(zip(*segments, strict=False))
    num_equal = _num_equal(pairs)
    with scratch_folder("bisect") as folder:
        parts = list(_parts(store, (left, right), pairs[num_equal : num_equal + 1], folder))
    if num_equal == len(pairs) and len(segments[0]) != len(segments[1]):
        parts.append(f"training: the same up to step {pairs[-1][0].last_step}, where one of both ends")
    weights = [model.output("weights.safetensors").digest for model in (left, right)]
    return BisectReport(
        first=digest,
        second=other,
        is_equal=weights[0] == weights[1],
        causes=tuple(_causes(left, right)),
        parts=tuple(parts),
        last_equal_step=pairs[num_equal - 1][0].end.step if num_equal else 0,
    )


def _causes(left: Manifest, right: Manifest) -> Iterator[Cause]:
    before, after = (_made_from(model) for model in (left, right))
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield Cause(name=name, first=before.get(name), second=after.get(name))


def _made_from(model: Manifest) -> dict[str, Json]:
    objects = {f"inputs.{entry['role']}": entry["digest"] for entry in read_objects(model.inputs)}
    return {"code": model.code, **flat(model.environment, "environment."), **flat(model.params), **objects}


def _num_equal(pairs: Sequence[tuple[Segment, Segment]]) -> int:
    """How many first segments led to the same states; once two differ, all behind them do."""
    low, high = 0, len(pairs)
    while low < high:
        middle = (low + high) // 2
        left, right = pairs[middle]
        if left.end.state == right.end.state and left.end.segment == right.end.segment:
            low = middle + 1
        else:
            high = middle
    return low


def _parts(
    store: Store, models: Sequence[Manifest], pairs: Sequence[tuple[Segment, Segment]], folder: Path
) -> Iterator[str]:
    """Sentences about the plans, and about the first pair of segments that led to different states."""
    digests = [model.input("batch_plan").digest("plan.parquet") for model in models]
    if digests[0] != digests[1]:
        yield _first_planned([read_parquet(store.fetch(digest, folder), PLAN_COLUMNS) for digest in digests])
    for left, right in pairs:
        if left.end.step != right.end.step:
            yield f"checkpoints: expected the next one of both at one step, got {left.end.step} and {right.end.step}"
            continue
        documents: list[dict[str, Any]] = [json.loads(store.get_bytes(entry.end.segment)) for entry in (left, right)]
        states = [store.fetch(entry.end.state, folder) for entry in (left, right)]
        for part in islice(differing_values(*documents), 1):
            yield f"{part.where}: {part.detail}"
        for part in islice(differing_tensors(*states), 1):
            yield f"after step {left.last_step}: {part.where}: {part.detail}"


def _first_planned(plans: Sequence[pa.Table]) -> str:
    """The first slot of two plans that does not hold the same sample."""
    rows = min(len(plan) for plan in plans)
    same = np.ones(rows, bool)
    for name in PLAN_COLUMNS:
        left, right = (plan[name].slice(0, rows).to_numpy() for plan in plans)
        same &= left == right
    if same.all():
        return f"plan: the first {rows} slots are the same, one has {abs(len(plans[0]) - len(plans[1]))} more"
    slots = [plan.slice(int(np.argmin(same)), 1).to_pylist()[0] for plan in plans]
    names = [f"{slot['id']} at step {slot['step']} lane {slot['lane']} slot {slot['slot']}" for slot in slots]
    return f"plan: {names[0]} in one is {names[1]} in the other"
