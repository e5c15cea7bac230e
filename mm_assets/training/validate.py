"""The check of ``model``: it consumed what was planned, it learned, and its checkpoints are one chain. Torch-free."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import Any

import pyarrow.parquet as pq
from pydantic import ValidationError

from mm_assets.batching.plan_file import PlanFile
from mm_assets.checks.rules import Rules
from mm_assets.checks.validations import Finding
from mm_assets.scratch import scratch_folder
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store
from mm_assets.store.tables import read_parquet
from mm_assets.training.chain import CheckpointRecord
from mm_assets.training.ledger import LEDGER, ledger_entry
from mm_assets.training.resume import chain_problem

#: Rows of the ledger that are compared at a time.
LEDGER_ROWS = 4096
#: Steps at either end of a run whose mean losses are compared.
COMPARED_STEPS = 20
#: A run shorter than this is not asked to have learned anything.
MIN_STEPS = 40


def validate_model(store: Store, manifest: Manifest, rules: Rules) -> tuple[Finding, ...]:
    """Everything that must hold before a model may be evaluated."""
    del rules
    with scratch_folder("check") as folder:
        plan = PlanFile(store.fetch(manifest.input("batch_plan").digest("plan.parquet"), folder))
        ledger = pq.ParquetFile(store.fetch(manifest.output("ledger.parquet").digest, folder))
        consumed = check_ledger(plan, ledger, num_lanes=int(manifest.params["plan"]["num_lanes"]))
        losses = read_parquet(store.fetch(manifest.output("metrics.parquet").digest, folder), ["loss"])
        checkpoints = json.loads(store.get_bytes(manifest.output("checkpoints.json").digest))
        spec = json.loads(store.get_bytes(manifest.output("spec.json").digest))
        store.check_object(manifest.output("weights.safetensors").digest)
    return (
        consumed,
        check_losses([float(loss) for loss in losses["loss"].to_pylist()]),
        check_chain(
            checkpoints["checkpoints"],
            manifest,
            run=spec["fingerprint"],
            num_steps=plan.num_steps,
        ),
    )


def check_ledger(plan: PlanFile, ledger: pq.ParquetFile, *, num_lanes: int) -> Finding:
    """Plan and ledger name the same samples in the same order for every step and lane."""
    difference = first_difference(planned_entries(plan, num_lanes), _rows(ledger))
    if difference is None:
        detail = f"{ledger.metadata.num_rows} ledger rows equal the plan"
        return Finding(rule="plan_equals_ledger", passed=True, detail=detail)
    sentence, ids = difference
    return Finding(rule="plan_equals_ledger", passed=False, detail=sentence, num_failing=len(ids), failing_ids=ids)


def check_losses(losses: list[float]) -> Finding:
    """All losses are finite, and a run that was long enough ended below where it began."""
    rule = "loss_is_finite_and_falls"
    broken = [step for step, loss in enumerate(losses) if not math.isfinite(loss)]
    if broken or not losses:
        detail = f"{len(broken)} of {len(losses)} losses are not finite, the first at step {broken[:1]}"
        return Finding(rule=rule, passed=False, detail=detail, num_failing=len(broken))
    if len(losses) < MIN_STEPS:
        return Finding(rule=rule, passed=True, detail=f"{len(losses)} finite losses, too few to compare ends")
    first = sum(losses[:COMPARED_STEPS]) / COMPARED_STEPS
    last = sum(losses[-COMPARED_STEPS:]) / COMPARED_STEPS
    detail = f"mean loss of the first {COMPARED_STEPS} steps {first:.4f}, of the last {last:.4f}"
    return Finding(rule=rule, passed=last < first, detail=detail)


def check_chain(entries: list[dict[str, Any]], manifest: Manifest, *, run: str, num_steps: int) -> Finding:
    """Every record has its digest and follows the one before; the last one is the plan's end and names the weights.

    ``run`` is the fingerprint of the training spec.
    """
    rule = "checkpoints_are_one_chain"
    try:
        records = [
            CheckpointRecord.model_validate({key: value for key, value in entry.items() if key != "record"})
            for entry in entries
        ]
    except ValidationError as error:
        return Finding(rule=rule, passed=False, detail=f"a record is malformed: {error.errors()[0]['msg']}")
    problem = chain_problem(records, run)
    changed = [r.step for r, entry in zip(records, entries, strict=True) if r.digest != entry.get("record")]
    if changed:
        problem = f"records of steps {changed} do not have the digest they are listed with"
    elif not records or records[-1].step != num_steps:
        problem = f"expected the last checkpoint at step {num_steps}, got {records[-1].step if records else 'none'}"
    elif records[-1].weights != manifest.output("weights.safetensors").digest:
        problem = "the last checkpoint names other weights than the model's"
    return Finding(rule=rule, passed=problem is None, detail=problem or f"{len(records)} checkpoints in one chain")


def planned_entries(plan: PlanFile, num_lanes: int) -> Iterator[dict[str, Any]]:
    """What the ledger of a run that followed ``plan`` must hold, in order of step and lane."""
    due = 0
    for slots in plan.read(["step", "lane", "id"]):
        steps, lanes, ids = slots["step"].to_pylist(), slots["lane"].to_pylist(), slots["id"].to_pylist()
        members: dict[tuple[int, int], list[str]] = {
            (step, lane): [] for step in range(due, steps[-1] + 1) for lane in range(num_lanes)
        }
        due = steps[-1] + 1
        for step, lane, sample in zip(steps, lanes, ids, strict=True):
            members[step, lane].append(sample)
        yield from (ledger_entry(step, lane, names) for (step, lane), names in members.items())


def first_difference(
    planned: Iterable[Mapping[str, Any]], ledger: Iterable[Mapping[str, Any]]
) -> tuple[str, tuple[str, ...]] | None:
    """Where plan and ledger part: a sentence and the ids concerned; None if they agree in every row."""
    for due, entry in zip_longest(planned, ledger):
        if due is None or (entry is not None and (entry["step"], entry["lane"]) < (due["step"], due["lane"])):
            return f"step {entry['step']} lane {entry['lane']} is not planned, or consumed twice", tuple(entry["ids"])
        where = f"step {due['step']} lane {due['lane']}"
        if entry is None or (entry["step"], entry["lane"]) != (due["step"], due["lane"]):
            return f"{where} was planned but not consumed", tuple(due["ids"])
        if {name: entry[name] for name in LEDGER.names} != due:
            differing = sorted(set(entry["ids"]) ^ set(due["ids"]))
            return f"{where} consumed other samples than planned", tuple(differing)
    return None


def _rows(ledger: pq.ParquetFile) -> Iterator[dict[str, Any]]:
    for batch in ledger.iter_batches(LEDGER_ROWS, use_threads=False):
        yield from batch.to_pylist()
