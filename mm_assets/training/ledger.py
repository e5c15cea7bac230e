"""The ledger: which samples every lane really consumed at every step, written from the batches themselves.

It is compared with the plan after training: ``plan == ledger`` is what makes a model traceable to its samples.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from mm_assets.identity.canonical import digest_json

LEDGER = pa.schema(
    [
        pa.field("step", pa.int32(), nullable=False),
        pa.field("lane", pa.int32(), nullable=False),
        pa.field("num_samples", pa.int32(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("ids", pa.list_(pa.string()), nullable=False),
    ]
)


def ledger_entry(step: int, lane: int, ids: Sequence[str]) -> dict[str, Any]:
    """One row: the ids in the order they were consumed, and the digest of that list."""
    return {"step": step, "lane": lane, "num_samples": len(ids), "digest": digest_json(list(ids)), "ids": list(ids)}


def planned_entries(plan: pa.Table, num_lanes: int) -> Iterable[dict[str, Any]]:
    """What the ledger of a run that followed ``plan`` must hold, in order."""
    steps, lanes, ids = plan["step"].to_pylist(), plan["lane"].to_pylist(), plan["id"].to_pylist()
    planned: dict[tuple[int, int], list[str]] = {
        (step, lane): [] for step in range(max(steps, default=-1) + 1) for lane in range(num_lanes)
    }
    for step, lane, sample in zip(steps, lanes, ids, strict=True):
        planned[step, lane].append(sample)
    return (ledger_entry(step, lane, members) for (step, lane), members in planned.items())


def first_difference(
    plan: pa.Table, ledger: Iterable[Mapping[str, Any]], num_lanes: int
) -> tuple[str, tuple[str, ...]] | None:
    """Where plan and ledger part: a sentence and the ids concerned; None if they agree in every row."""
    expected = {(entry["step"], entry["lane"]): entry for entry in planned_entries(plan, num_lanes)}
    for entry in ledger:
        where = (entry["step"], entry["lane"])
        planned = expected.pop(where, None)
        if planned is None:
            return f"step {where[0]} lane {where[1]} is not planned, or consumed twice", tuple(entry["ids"])
        if {name: entry[name] for name in LEDGER.names} != planned:
            differing = sorted(set(entry["ids"]) ^ set(planned["ids"]))
            return f"step {where[0]} lane {where[1]} consumed other samples than planned", tuple(differing)
    if expected:
        step, lane = min(expected)
        return f"step {step} lane {lane} was planned but not consumed", tuple(expected[step, lane]["ids"])
    return None
