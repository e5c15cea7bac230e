"""Where two runs part: the first step, lane and value of what they consumed and measured, and the first tensor."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

#: Relative to the expected values: what other kernels for the same sums were seen to stay far below in a segment.
TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A value in which two runs differ.

    Attributes:
        where: Step and lane, or the tensor.
        detail: Expected and got.
        is_close: Whether it is a number, or numbers, within ``TOLERANCE``.
    """

    where: str
    detail: str
    is_close: bool


def differing_values(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> Iterator[Part]:
    """What differs in two segments (``mm.segment/1``), by step; at one step what was consumed comes first."""
    parts = [part for kind in ("lanes", "steps") for part in _differing(kind, expected[kind], actual[kind])]
    yield from (part for _, part in sorted(parts, key=lambda entry: entry[0]))


def differing_tensors(expected: Path, actual: Path) -> Iterator[Part]:
    """What differs in two safetensors files, in the order of their names; weights before the optimizer's state."""
    with safe_open(expected, "np") as left, safe_open(actual, "np") as right:
        names = sorted({*left.keys(), *right.keys()})
        for name in names:
            if name not in left.keys() or name not in right.keys():
                yield Part(where=name, detail="is in one of both only", is_close=False)
                continue
            before, after = left.get_tensor(name), right.get_tensor(name)
            if before.shape != after.shape:
                yield Part(where=name, detail=f"expected shape {before.shape}, got {after.shape}", is_close=False)
            elif before.tobytes() != after.tobytes():
                yield _differing_tensor(name, before, after)


def _differing_tensor(name: str, before: np.ndarray, after: np.ndarray) -> Part:
    before, after = before.astype(np.float64), after.astype(np.float64)
    distance, size = float(np.linalg.norm(before - after)), float(np.linalg.norm(before))
    number = int(np.count_nonzero(before != after))
    relative = distance / size if size else float("inf") if distance else 0.0
    detail = f"{number} of {before.size} values differ, by {relative:.1e} of its norm"
    return Part(where=name, detail=detail, is_close=relative <= TOLERANCE)


def _differing(
    kind: str, expected: list[Mapping[str, Any]], actual: list[Mapping[str, Any]]
) -> Iterator[tuple[tuple[int, int, int], Part]]:
    """The parts, each with what they are sorted by."""
    before, after = ({_place(entry): entry for entry in entries} for entries in (expected, actual))
    for place in sorted({*before, *after}):
        step, lane = place
        where = f"step {step}" if lane < 0 else f"step {step} lane {lane}"
        order = (step, 1 if lane < 0 else 0, lane)
        if place not in before or place not in after:
            yield order, Part(where=where, detail=f"is in one of both {kind} only", is_close=False)
            continue
        for name in sorted({*before[place], *after[place]}):
            old, new = before[place].get(name), after[place].get(name)
            if old != new:
                yield (
                    order,
                    Part(where=where, detail=f"{name}: expected {old}, got {new}", is_close=_is_close(old, new)),
                )


def _place(entry: Mapping[str, Any]) -> tuple[int, int]:
    return entry["step"], entry.get("lane", -1)


def _is_close(old: object, new: object) -> bool:
    if not isinstance(old, float) or not isinstance(new, float):
        return False
    return abs(old - new) <= TOLERANCE * abs(old)
