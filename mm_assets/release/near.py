"""Groups of nearly equal signatures: candidates from buckets of several tables, each pair verified by its distance.

A table puts signatures into one bucket whose first components are equal. A bucket with more than ``limit`` signatures
is divided by further components, so that work is bounded by the number of signatures; where a table has no further
component, the members of a bucket are compared with its first ones and with their neighbours, and none is skipped. A
pair that one table separates, another one brings together.

The answer depends on the set of signatures alone: not on their order, nor on how often each occurs.

Source: LSH forests, Bawa et al. 2005, "LSH forest: self-tuning indexes for similarity search".
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from mm_assets.release.dedup import Ints, by_bucket, components

#: Comparisons of all tables together grow by this per signature at most.
COMPARISONS = 60_000_000
SMALLEST_BUCKET, LARGEST_BUCKET = 8, 64
#: Members at the front of an undividable bucket that all others are compared with.
LEADERS = 8
#: Signatures that are read at a time, sorted ones that are compared at a time, and pairs that are verified at a time.
CHUNK, BLOCK, PAIRS = 1 << 16, 1 << 14, 1 << 12
#: A component tells about this many bits; used only for the depth at which tables begin.
BITS_PER_COMPONENT = 3
#: Threads that compare; the answer does not depend on them.
THREADS = min(8, len(os.sched_getaffinity(0)))

Words = npt.NDArray[np.uint64]
#: Bytes [numbers, bytes] of signatures by their numbers.
Read = Callable[[Ints], npt.NDArray[np.uint8]]
Pairs = tuple[Ints, Ints]


def near_groups(signatures: npt.NDArray[np.uint8], nearness: Any) -> Ints:
    """For every row the smallest row of its group: rows connected by pairs that are near.

    Args:
        signatures: [rows, bytes], as the modality's ``nearness`` describes them.
        nearness: That aspect.
    """
    return find_groups(len(signatures), signatures.__getitem__, nearness)


def find_groups(count: int, read: Read, nearness: Any, *, buckets: int = 1) -> Ints:
    """As ``near_groups``, of ``count`` signatures that are read where they are needed.

    ``buckets`` divides every table by the first bits of its keys, a power of two: one part can be searched apart from
    the others, with less memory. It changes nothing else.
    """
    first_row, number = distinct(count, read)
    with ThreadPoolExecutor(THREADS) as pool:
        of_value = _Groups(first_row, read, nearness, pool, buckets).find()
    leader = np.full(len(first_row), count, dtype=np.int64)
    np.minimum.at(leader, of_value, first_row)
    return leader[of_value][number]


def distinct(count: int, read: Read) -> tuple[Ints, Ints]:
    """A row of each distinct signature, in an order that only the signatures decide, and the number of every row's."""
    keys = np.zeros(count, np.uint64)
    for part in _parts(count, CHUNK):
        signatures = read(np.arange(part.start, part.stop, dtype=np.int64))
        padded = np.zeros((len(signatures), -(-signatures.shape[1] // 8) * 8), np.uint8)
        padded[:, : signatures.shape[1]] = signatures
        mixed = keys[part]
        for word in np.ascontiguousarray(padded.view("<u8").T):
            mixed = _mix(mixed ^ word)
        keys[part] = mixed
    _, first_row, number = np.unique(keys, return_index=True, return_inverse=True)
    return first_row.astype(np.int64), number.astype(np.int64)


def _parts(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _mix(words: Words) -> Words:
    """A bijection of 64-bit words. Source: SplitMix64, Steele et al. 2014."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _sorted(keys: Words) -> tuple[Ints, Words]:
    """An order in which equal keys are beside each other, and the keys in it, shortened.

    Place and key share a word, which sorts in half of the time that ``argsort`` takes. What is left of a key tells
    rows apart so well that a bucket of two keys is rare; its rows are compared, and nothing else follows from it.
    """
    bits = np.uint64(max(1, len(keys) - 1).bit_length())
    words = np.sort((keys >> bits << bits) | np.arange(len(keys), dtype=np.uint64))
    return (words & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64), words >> bits


def _places(keys: Words) -> Pairs:
    """For sorted keys how many are equal to each, and how many places each is before the end of its equals."""
    start = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, np.int64)
    count = np.diff(np.append(start, len(keys)))
    return np.repeat(count, count), np.repeat(start + count, count) - np.arange(len(keys))


class _Groups:
    """The search over distinct values; ``labels`` holds the smallest row that each is known to be connected with.

    Only the outlines of values are in memory. Blocks of a table are compared by several threads: which pairs they find
    near does not depend on what another one has found meanwhile, except that pairs of one group are not looked at.
    """

    def __init__(self, first_row: Ints, read: Read, nearness: Any, pool: ThreadPoolExecutor, buckets: int) -> None:
        self.first_row, self.read, self.nearness, self.pool = first_row, read, nearness, pool
        self.buckets = buckets
        parts = pool.map(
            lambda part: nearness.outlines(nearness.parse(read(first_row[part]))), _parts(len(first_row), BLOCK)
        )
        self.outlines = _stacked(parts, len(first_row))
        self.labels: Ints = np.arange(len(first_row), dtype=np.int64)
        per_value = 2 * COMPARISONS // max(1, len(first_row) * nearness.NUM_TABLES)
        self.limit = int(np.clip(per_value, SMALLEST_BUCKET, LARGEST_BUCKET))

    def find(self) -> Ints:
        num_values = len(self.first_row)
        if num_values < 2:
            return self.labels
        bits = max(0, (num_values // self.limit).bit_length() - 1)
        start = min(self.nearness.MAX_DEPTH, max(1, bits // BITS_PER_COMPONENT))
        for table in range(self.nearness.NUM_TABLES):
            self._search(table, start)
        return self.labels

    def _search(self, table: int, start: int) -> None:
        """One table; its parts have no key in common."""
        rows = np.arange(len(self.first_row), dtype=np.int64)
        keys = np.zeros(len(rows), np.uint64)
        self._deepen(rows, keys, table=table, first=0, last=start)
        for part in by_bucket(keys, self.buckets):
            self._search_part(rows[part], keys[part], table=table, reached=start)

    def _search_part(self, rows: Ints, keys: Words, *, table: int, reached: int) -> None:
        """Level by level: small buckets are compared, large ones go to the next level."""
        while len(rows):
            order, bucket = _sorted(keys)
            size, remaining = _places(bucket)
            small = (size > 1) & (size <= self.limit)
            self._compare(rows[order[small]], remaining[small])
            order = order[size > self.limit]
            rows, keys = rows[order], keys[order]
            if reached >= self.nearness.MAX_DEPTH:
                self._compare_large(rows[np.lexsort([rows, keys])], np.sort(keys))
                return
            self._deepen(rows, keys, table=table, first=reached, last=reached + 1)
            reached += 1

    def _deepen(self, rows: Ints, keys: Words, *, table: int, first: int, last: int) -> None:
        """Mixes further components of a table into ``keys``."""

        def deepen(part: slice) -> None:
            outlines = (
                self.outlines[part] if len(rows) == len(self.outlines) else self.outlines.take(rows[part], axis=0)
            )
            found = self.nearness.components(outlines, table=table, first=first, last=last)
            mixed = keys[part]
            for component in np.ascontiguousarray(found.T):
                mixed = _mix(mixed ^ component.astype(np.uint64))
            keys[part] = mixed

        for _ in self.pool.map(deepen, _parts(len(rows), BLOCK)):
            pass

    def _compare(self, rows: Ints, remaining: Ints) -> None:
        """Every pair of rows of one bucket that are less than ``limit`` places apart.

        Args:
            rows: Buckets one after the other.
            remaining: How many places each row is before the end of its bucket.
        """
        self._join(self.pool.map(lambda part: self._near_of(rows, remaining, part), _parts(len(rows), BLOCK)))

    def _near_of(self, rows: Ints, remaining: Ints, part: slice) -> Pairs:
        """The near pairs whose left row is in ``part``."""
        remaining = remaining[part]
        block = rows[part.start : part.stop + self.limit]
        outlines, labels = self.outlines.take(block, axis=0), self.labels[block]
        places = np.flatnonzero(remaining > 1)
        found, pending = _no_pairs(), _no_pairs()
        checked_at = 1
        for distance in range(1, self.limit):
            places = places[remaining[places] > distance]
            if not len(places):
                break
            left = places[labels[places] != labels[places + distance]]
            beside = outlines.take(left + distance, axis=0)
            left = left[self.nearness.may_be_near(outlines.take(left, axis=0), beside)]
            pending = _joined([pending, (left, left + distance)])
            if distance >= checked_at:
                near = self._verified(block, pending)
                labels = _merged(labels, near)
                found, pending, checked_at = _joined([found, near]), _no_pairs(), 2 * distance
        found = _joined([found, self._verified(block, pending)])
        return block[found[0]], block[found[1]]

    def _verified(self, block: Ints, pairs: Pairs) -> Pairs:
        """Those of some pairs of places in ``block`` that are near."""
        if not len(pairs[0]):
            return pairs
        near: list[npt.NDArray[np.bool_]] = []
        for part in _parts(len(pairs[0]), PAIRS):
            left, right = pairs[0][part], pairs[1][part]
            places, index = np.unique(np.concatenate([left, right]), return_inverse=True)
            values = self.nearness.parse(self.read(self.first_row[block[places]]))
            sides = [values.take(side, axis=0) for side in (index[: len(left)], index[len(left) :])]
            near.append(self.nearness.are_near(*sides))
        kept = np.concatenate(near)
        return pairs[0][kept], pairs[1][kept]

    def _compare_large(self, rows: Ints, keys: Words) -> None:
        size, remaining = _places(keys)
        self._compare(rows, remaining)
        begin = np.arange(len(rows)) - (size - remaining)
        for leader in range(LEADERS):
            places = begin + np.minimum(leader, size - 1)
            self._join(self.pool.map(lambda part: self._near_to(rows, places, part), _parts(len(rows), BLOCK)))  # noqa: B023

    def _near_to(self, rows: Ints, places: Ints, part: slice) -> Pairs:
        """The rows of ``part`` that are near to the rows at ``places`` of theirs, with these."""
        left, right = rows[places[part]], rows[part]
        apart = np.flatnonzero(self.labels[left] != self.labels[right])
        outlines = [self.outlines.take(side[apart], axis=0) for side in (left, right)]
        apart = apart[self.nearness.may_be_near(*outlines)]
        block = np.concatenate([left, right])
        near = self._verified(block, (apart, apart + len(left)))
        return block[near[0]], block[near[1]]

    def _join(self, found: Iterator[Pairs]) -> None:
        self.labels = _merged(self.labels, _joined(list(found)), is_leader=True)


def _stacked(parts: Iterator[npt.NDArray[Any]], count: int) -> npt.NDArray[Any]:
    """Parts one below the other, without a second copy of them all."""
    result: npt.NDArray[Any] | None = None
    start = 0
    for part in parts:
        if result is None:
            result = np.empty((count, part.shape[1]), part.dtype)
        result[start : start + len(part)] = part
        start += len(part)
    return np.zeros((0, 1)) if result is None else result


def _no_pairs() -> Pairs:
    return np.zeros(0, np.int64), np.zeros(0, np.int64)


def _joined(pairs: Sequence[Pairs]) -> Pairs:
    every = [*pairs, _no_pairs()]
    return np.concatenate([pair[0] for pair in every]), np.concatenate([pair[1] for pair in every])


def _merged(labels: Ints, pairs: Pairs, *, is_leader: bool = False) -> Ints:
    """Labels in which the places of every pair have the same one, the smallest of those that they are connected with.

    ``is_leader`` says that a label is itself the place of one that has it.
    """
    if not len(pairs[0]):
        return labels
    known, numbers = np.unique(labels[np.concatenate(pairs)], return_inverse=True)
    count = np.arange(len(pairs[0]), dtype=np.int64)
    merged = known[components(len(known), numbers.astype(np.int64), np.concatenate([count, count]))]
    if is_leader:
        leader = np.arange(len(labels), dtype=np.int64)
        leader[known] = merged
        return leader[labels]
    place = np.minimum(np.searchsorted(known, labels), len(known) - 1)
    return np.where(known[place] == labels, merged[place], labels)
