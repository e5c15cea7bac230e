"""Samples that are nearly equal to what an evaluation set tests on, found by distance and verified pair by pair.

Every frozen release keeps the signatures of its test split. A release is compared with those of the sets it is held
against: candidates share a bucket of one of several tables, as in ``near.py``, but only pairs across are looked at. The
work grows with the number of the release's signatures, and with nothing that other releases ever held.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.release.dedup import Bools, Ints
from mm_assets.release.signatures import Signatures
from mm_assets.store.manifest import Input
from mm_assets.store.objects import Store
from mm_assets.store.tables import read_parquet, write_batches

SIGNATURES_FILE = "evaluation_signatures.parquet"
SCHEMA = pa.schema([("modality", pa.string()), ("signature", pa.binary())])
#: Up to this many pairs every one is compared; beyond it, those that share a bucket.
EXACT_PAIRS = 4_000_000
#: Members of a bucket that a signature is compared with at most, and the share of a set that may be in larger ones: a
#: table uses as many components as that takes.
BUCKET, MAX_CROWDED = 64, 0.01
#: Places between two rows of one set that are compared.
NEIGHBOURS = 16
#: Signatures of the release that are looked at at a time, and pairs that are verified at a time.
CHUNK, PAIRS = 1 << 15, 1 << 16
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

Data = npt.NDArray[np.uint8]


def has_signatures(entry: Input) -> bool:
    """Whether signatures of a set are known: one that older code froze has none."""
    return any(output.name == SIGNATURES_FILE for output in entry.outputs)


def write_signatures(signatures: Mapping[str, Signatures], is_tested: Bools, path: Path) -> int:
    """Writes the distinct signatures of some rows, in an order that only they decide; returns their number.

    Args:
        signatures: By modality.
        is_tested: By position.
        path: Where to write.
    """
    batches = (
        pa.record_batch([pa.array([name] * len(rows), pa.string()), binary_rows(rows)], schema=SCHEMA)
        for name, found in sorted(signatures.items())
        for rows in _distinct_rows(found, np.flatnonzero(is_tested[found.position]))
    )
    return write_batches(pa.RecordBatchReader.from_batches(SCHEMA, batches), SCHEMA, path)


def _distinct_rows(found: Signatures, numbers: Ints) -> Iterator[Data]:
    """The distinct signatures of some numbers in the order of their bytes, about ``CHUNK`` at a time."""
    begins = np.zeros(len(numbers), ">u8")
    for start in range(0, len(numbers), CHUNK):
        begins[start : start + CHUNK] = _first_bytes(found.read(numbers[start : start + CHUNK]))
    order = np.argsort(begins.astype(np.uint64), kind="stable")
    numbers, begins = numbers[order], begins[order]
    start = 0
    while start < len(numbers):
        # Signatures that begin alike are not divided.
        end = int(np.searchsorted(begins, begins[min(start + CHUNK, len(begins)) - 1], "right"))
        yield np.unique(found.read(numbers[start:end]), axis=0)
        start = end


def _first_bytes(rows: Data) -> npt.NDArray[Any]:
    return np.ascontiguousarray(rows[:, :8]).view(">u8")[:, 0]


def binary_rows(rows: Data) -> pa.Array:
    """Rows of bytes as one array, without an object for each."""
    data = pa.py_buffer(np.ascontiguousarray(rows))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(rows.shape[1]), len(rows), [None, data]).cast(pa.binary())


def find_near(
    signatures: Mapping[str, Signatures], store: Store, sets: Sequence[Input], folder: Path, *, num_rows: int
) -> Ints:
    """For every position the first of ``sets`` that holds a signature near to one of its own, or -1."""
    result = np.full(num_rows, -1, dtype=np.int64)
    for number, entry in reversed(list(enumerate(sets))):
        if not has_signatures(entry):
            continue
        table = read_parquet(store.fetch(entry.digest(SIGNATURES_FILE), folder))
        for name, found in signatures.items():
            tested = table.filter(pc.equal(table["modality"], name))  # pyright: ignore[reportAttributeAccessIssue]
            others = np.frombuffer(b"".join(tested["signature"].to_pylist()), np.uint8)
            result[near_positions(found, others.reshape(-1, found.nearness.NUM_BYTES))] = number
    return result


def near_positions(found: Signatures, others: Data, *, exact_pairs: int = EXACT_PAIRS) -> Ints:
    """Positions whose signature is near to one of ``others`` [rows, bytes]."""
    if len(others) == 0 or len(found.position) == 0:
        return np.zeros(0, np.int64)
    index = _Index(others, found.nearness)
    is_exact = len(others) * len(found.position) <= exact_pairs
    near: list[Ints] = []
    for start in range(0, len(found.position), CHUNK):
        numbers = np.arange(start, min(start + CHUNK, len(found.position)))
        values = found.nearness.parse(found.read(numbers))
        hit = index.near_exactly(values) if is_exact else index.near(values)
        near.append(found.position[numbers[hit]])
    return np.concatenate(near)


def near_pairs(data: Data, nearness: Any) -> Ints:
    """Pairs [pairs, 2] of rows that are near and at most ``NEIGHBOURS`` places apart in the order of some table.

    Rows are ordered by all components of a table, so that neighbours share as many of the first ones as any rows do.
    The work is linear in the number of rows, whatever share of them is near to each other.
    """
    index = _Index(data, nearness)
    pairs: list[Ints] = [np.zeros((0, 2), dtype=np.int64)]
    for number in range(nearness.NUM_TABLES):
        components = nearness.components(index.outlines, table=number, first=0, last=nearness.MAX_DEPTH)
        order = np.lexsort(components.T[::-1])
        for distance in range(1, min(NEIGHBOURS, len(order) - 1) + 1):
            pairs.append(index.pairs(order[:-distance], order[distance:]))
    return np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)


@dataclass(frozen=True, slots=True)
class _Table:
    """Signatures of a set by the bucket of one table: its keys in order, whose each is, and of how many components."""

    keys: npt.NDArray[np.uint64]
    rows: Ints
    depth: int


class _Index:
    """The signatures of a set, in buckets of every table."""

    def __init__(self, data: Data, nearness: Any) -> None:
        self.nearness = nearness
        self.values = nearness.parse(data)
        self.outlines = nearness.outlines(self.values)
        self.tables: list[_Table] = []

    def near_exactly(self, values: npt.NDArray[Any]) -> Bools:
        """Which values are near to one of the set, every pair compared."""
        hit = np.zeros(len(values), np.bool_)
        outlines = self.nearness.outlines(values)
        for other in range(len(self.values)):
            rows = np.flatnonzero(~hit)
            hit[self._verified(values, outlines, rows, np.full(len(rows), other))] = True
        return hit

    def near(self, values: npt.NDArray[Any]) -> Bools:
        """Which values are near to one of the set that shares a bucket with them."""
        hit = np.zeros(len(values), np.bool_)
        outlines = self.nearness.outlines(values)
        for number in range(self.nearness.NUM_TABLES):
            table = self._table(number)
            rows = np.flatnonzero(~hit)
            keys = self._keys(outlines[rows], number, table.depth)
            first = np.searchsorted(table.keys, keys, "left")
            count = np.minimum(np.searchsorted(table.keys, keys, "right") - first, BUCKET)
            place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            right = table.rows[np.repeat(first, count) + place]
            hit[self._verified(values, outlines, np.repeat(rows, count), right)] = True
        return hit

    def pairs(self, left: Ints, right: Ints) -> Ints:
        """Those of some pairs of rows of the set that are near."""
        near: list[Ints] = [np.zeros((0, 2), dtype=np.int64)]
        for part in _parts(len(left)):
            one, other = left[part], right[part]
            kept = self.nearness.may_be_near(self.outlines[one], self.outlines[other])
            one, other = one[kept], other[kept]
            kept = self.nearness.are_near(self.values[one], self.values[other])
            near.append(np.stack([one[kept], other[kept]], axis=1))
        return np.concatenate(near)

    def _table(self, number: int) -> _Table:
        while len(self.tables) <= number:
            depth = self.tables[-1].depth if self.tables else 1
            keys = self._keys(self.outlines, len(self.tables), depth)
            while _crowded(keys) > MAX_CROWDED and depth < self.nearness.MAX_DEPTH:
                depth += 1
                keys = self._keys(self.outlines, len(self.tables), depth)
            order = np.argsort(keys, kind="stable")
            self.tables.append(_Table(keys[order], order, depth))
        return self.tables[number]

    def _keys(self, outlines: npt.NDArray[Any], table: int, depth: int) -> npt.NDArray[np.uint64]:
        keys = np.zeros(len(outlines), np.uint64)
        for component in self.nearness.components(outlines, table=table, first=0, last=depth).T:
            keys = (keys + component.astype(np.uint64) + np.uint64(1)) * _MULTIPLIER
            keys ^= keys >> np.uint64(29)
        return keys

    def _verified(self, values: npt.NDArray[Any], outlines: npt.NDArray[Any], left: Ints, right: Ints) -> Ints:
        """Those of ``left`` that are near to their row of the set."""
        near: list[Ints] = [np.zeros(0, np.int64)]
        for part in _parts(len(left)):
            one, other = left[part], right[part]
            kept = self.nearness.may_be_near(outlines[one], self.outlines[other])
            one, other = one[kept], other[kept]
            near.append(one[self.nearness.are_near(values[one], self.values[other])])
        return np.concatenate(near)


def _crowded(keys: npt.NDArray[np.uint64]) -> float:
    """The share of keys that more than ``BUCKET`` share."""
    count = np.unique(keys, return_counts=True)[1]
    return float(count[count > BUCKET].sum() / len(keys))


def _parts(count: int) -> Iterator[slice]:
    for start in range(0, count, PAIRS):
        yield slice(start, start + PAIRS)
