"""Why two models differ: what they were made from, and the first step and tensor in which their trainings part.

Only what the store keeps is read; nothing is trained.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.identity.canonical import Json
from mm_assets.lineage.records import find_model, flat
from mm_assets.scratch import scratch_folder
from mm_assets.store.action import read_objects
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store
from mm_assets.store.tables import read_parquet
from mm_assets.training.chain import CheckpointRecord
from mm_assets.training.differences import differing_tensors, differing_values
from mm_assets.training.replay import checkpoints_of


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
    records = checkpoints_of(store, left), checkpoints_of(store, right)
    parting = _parting(*records)
    with scratch_folder("bisect") as folder:
        parts = [*_plan_parts(store, (left, right), folder), *_training_parts(store, records, parting, folder)]
    weights = [model.output("weights.safetensors").digest for model in (left, right)]
    return BisectReport(
        first=digest,
        second=other,
        is_equal=weights[0] == weights[1],
        causes=tuple(_causes(left, right)),
        parts=tuple(parts),
        last_equal_step=parting.last_equal,
    )


def _causes(left: Manifest, right: Manifest) -> Iterator[Cause]:
    before, after = (_made_from(model) for model in (left, right))
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield Cause(name=name, first=before.get(name), second=after.get(name))


def _made_from(model: Manifest) -> dict[str, Json]:
    objects = {f"inputs.{entry['role']}": entry["digest"] for entry in read_objects(model.inputs)}
    return {"code": model.code, **flat(model.environment, "environment."), **flat(model.params), **objects}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parting:
    """Steps of checkpoints that both trainings have.

    Attributes:
        last_equal: The last one up to which nothing differs; 0 for the beginning.
        first_other: The next one; None where both have none behind ``last_equal``.
    """

    last_equal: int
    first_other: int | None


def _parting(left: Sequence[CheckpointRecord], right: Sequence[CheckpointRecord]) -> _Parting:
    """Where two chains of checkpoints part; they need not have been saved at the same steps."""
    others = {record.step: record for record in right}
    starts = [
        dict(zip((record.step for record in chain), (0, *(record.step for record in chain)), strict=False))
        for chain in (left, right)
    ]
    last_equal = 0
    for record in left:
        other = others.get(record.step)
        if other is None:
            continue
        is_one_segment = starts[0][record.step] == starts[1][record.step]
        if record.state != other.state or (is_one_segment and record.segment != other.segment):
            return _Parting(last_equal=last_equal, first_other=record.step)
        last_equal = record.step
    return _Parting(last_equal=last_equal, first_other=None)


def _training_parts(
    store: Store,
    records: tuple[Sequence[CheckpointRecord], Sequence[CheckpointRecord]],
    parting: _Parting,
    folder: Path,
) -> Iterator[str]:
    """Sentences about what both consumed and measured up to the first common checkpoint that differs, and about it."""
    step = parting.first_other
    if step is None:
        yield from _ends(records, parting.last_equal)
        return
    documents = [_consumed(store, chain, parting.last_equal, step) for chain in records]
    states = [
        store.fetch(record.state, folder, f"{number}.safetensors")
        for number, chain in enumerate(records)
        for record in chain
        if record.step == step
    ]
    for part in islice(differing_values(*documents), 1):
        yield f"{part.where}: {part.detail}"
    for part in islice(differing_tensors(*states), 1):
        yield f"after step {step - 1}: {part.where}: {part.detail}"


def _ends(records: Sequence[Sequence[CheckpointRecord]], last_equal: int) -> Iterator[str]:
    """What is left to say of trainings that are the same at every common checkpoint."""
    steps = [[record.step for record in chain] for chain in records]
    if steps[0][-1] == steps[1][-1]:
        return
    if last_equal and last_equal in (steps[0][-1], steps[1][-1]):
        yield f"training: the same up to step {last_equal - 1}, where one of both ends"
        return
    shown = [", ".join(str(step) for step in chain if step > last_equal) for chain in steps]
    same = f"the same up to step {last_equal - 1}; after that " if last_equal else ""
    yield f"checkpoints: {same}no step is in both: one has {shown[0]}, the other {shown[1]}"


def _consumed(store: Store, chain: Sequence[CheckpointRecord], after: int, until: int) -> dict[str, Any]:
    """The segments between two steps as one."""
    found: dict[str, list[Any]] = {"lanes": [], "steps": []}
    for record in chain:
        if after < record.step <= until:
            document = json.loads(store.get_bytes(record.segment))
            for name in found:
                found[name] += document[name]
    return found


def _plan_parts(store: Store, models: Sequence[Manifest], folder: Path) -> Iterator[str]:
    """A sentence about the first difference of the plans, if there is one."""
    digests = [model.input("batch_plan").digest("plan.parquet") for model in models]
    if digests[0] != digests[1]:
        yield first_planned([read_parquet(store.fetch(digest, folder)) for digest in digests])


def first_planned(plans: Sequence[pa.Table]) -> str:
    """The first slot of two plans that is not the same in every column."""
    names = [set(plan.column_names) for plan in plans]
    if names[0] != names[1]:
        return f"plan: columns {', '.join(sorted(names[0] ^ names[1]))} are in one of both only"
    rows = min(len(plan) for plan in plans)
    differing: dict[str, int] = {}
    for name in plans[0].column_names:
        place = _first_other(*(plan[name].slice(0, rows) for plan in plans))
        if place is not None:
            differing[name] = place
    if not differing:
        more = abs(len(plans[0]) - len(plans[1]))
        return f"plan: the first {rows} slots are the same, " + (f"one has {more} more" if more else "in other bytes")
    first = min(differing.values())
    slots = [plan.slice(first, 1).to_pylist()[0] for plan in plans]
    shown = [f"{slot['id']} at step {slot['step']} lane {slot['lane']} slot {slot['slot']}" for slot in slots]
    if shown[0] != shown[1]:
        return f"plan: {shown[0]} in one is {shown[1]} in the other"
    column = next(name for name, place in differing.items() if place == first)
    return f"plan: {shown[0]}: {column} is {slots[0][column]} in one, {slots[1][column]} in the other"


def _first_other(left: pa.ChunkedArray, right: pa.ChunkedArray) -> int | None:
    """The first row in which two columns differ; missing values are equal to each other."""
    if left.type != right.type:
        return 0 if len(left) else None
    are_missing = pc.and_(left.is_null(), right.is_null())  # pyright: ignore[reportAttributeAccessIssue]
    are_equal = pc.or_(are_missing, pc.equal(left, right).fill_null(False))  # pyright: ignore[reportAttributeAccessIssue]
    place = pc.index(are_equal, False).as_py()  # pyright: ignore[reportAttributeAccessIssue]
    return None if place < 0 else place
