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
from dataclasses import dataclass
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
#: Components by which a key that is kept tells a bucket's members apart, and bits of it that each takes.
LEVELS, LEVEL_BITS = 6, 5
#: Threads that compare; the answer does not depend on them.
THREADS = min(8, len(os.sched_getaffinity(0)))

Words = npt.NDArray[np.uint64]
#: Bytes [numbers, bytes] of signatures by their numbers.
Read = Callable[[Ints], npt.NDArray[np.uint8]]
Pairs = tuple[Ints, Ints]


def distinct(count: int, read: Read) -> tuple[Ints, Ints]:
    """A row of each distinct signature, in an order that only the signatures decide, and the number of every row's."""
    keys = np.zeros(count, np.uint64)
    for part in chunks(count, CHUNK):
        keys[part] = value_keys(read(np.arange(part.start, part.stop, dtype=np.int64)))
    _, first_row, number = np.unique(keys, return_index=True, return_inverse=True)
    return first_row.astype(np.int64), number.astype(np.int64)


def value_keys(signatures: npt.NDArray[np.uint8]) -> Words:
    """A number for each row of bytes that is equal for equal rows, and for no others that ever meet."""
    padded = np.zeros((len(signatures), -(-signatures.shape[1] // 8) * 8), np.uint8)
    padded[:, : signatures.shape[1]] = signatures
    keys = np.zeros(len(signatures), np.uint64)
    for word in np.ascontiguousarray(padded.view("<u8").T):
        keys = _mix(keys ^ word)
    return keys


def chunks(count: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` that together have ``count`` places."""
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


def most_in_bucket(count: int, nearness: Any) -> int:
    """How many of ``count`` signatures share a bucket before it is divided."""
    return int(np.clip(2 * COMPARISONS // max(1, count * nearness.NUM_TABLES), SMALLEST_BUCKET, LARGEST_BUCKET))


def first_depth(count: int, nearness: Any) -> int:
    """How many components of ``count`` signatures decide the first buckets of a table."""
    bits = max(0, (count // most_in_bucket(count, nearness)).bit_length() - 1)
    return min(nearness.MAX_DEPTH, max(1, bits // BITS_PER_COMPONENT))


@dataclass(frozen=True, kw_only=True, slots=True)
class Values:
    """Distinct signatures by their number: what is kept of each, read where it is needed."""

    outlines: Callable[[Ints], npt.NDArray[Any]]
    read: Read
    nearness: Any


class Groups:
    """The search over distinct values; ``labels`` holds the smallest one that each is known to be connected with.

    Blocks of a table are compared by several threads: which pairs they find near does not depend on what another one
    has found meanwhile, except that pairs of one group are not looked at.
    """

    def __init__(self, values: Values, labels: Ints, pool: ThreadPoolExecutor, *, limit: int) -> None:
        self.values, self.labels, self.pool, self.limit = values, labels, pool, limit
        self.nearness = values.nearness

    def search(self, keys: Words, *, table: int, depth: int, buckets: int = 1) -> None:
        """One table: joins what is near and in one bucket.

        Args:
            keys: Of every value, from its first ``depth`` components; they are changed.
            table: Its number.
            depth: The number of components that are in ``keys``.
            buckets: Parts into which the table is divided by the first bits of its keys; they have no key in common.
        """
        rows = np.arange(len(keys), dtype=np.int64)
        for part in by_bucket(keys, buckets):
            self._search_part(rows[part], keys[part], table=table, reached=depth)

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
            deepen(rows, keys, self.values, self.pool, table=table, first=reached, last=reached + 1)
            reached += 1

    def _compare(self, rows: Ints, remaining: Ints) -> None:
        """Every pair of rows of one bucket that are less than ``limit`` places apart.

        Args:
            rows: Buckets one after the other.
            remaining: How many places each row is before the end of its bucket.
        """
        self._join(self.pool.map(lambda part: self._near_of(rows, remaining, part), chunks(len(rows), BLOCK)))

    def _near_of(self, rows: Ints, remaining: Ints, part: slice) -> Pairs:
        """The near pairs whose left row is in ``part``."""
        remaining = remaining[part]
        block = rows[part.start : part.stop + self.limit]
        outlines, labels = self.values.outlines(block), self.labels[block]
        places = np.flatnonzero(remaining > 1)
        found, pending = no_pairs(), no_pairs()
        checked_at = 1
        for distance in range(1, self.limit):
            places = places[remaining[places] > distance]
            if not len(places):
                break
            left = places[labels[places] != labels[places + distance]]
            beside = outlines.take(left + distance, axis=0)
            left = left[self.nearness.may_be_near(outlines.take(left, axis=0), beside)]
            pending = joined([pending, (left, left + distance)])
            if distance >= checked_at:
                near = self._verified(block, pending)
                labels = _merged(labels, near)
                found, pending, checked_at = joined([found, near]), no_pairs(), 2 * distance
        found = joined([found, self._verified(block, pending)])
        return block[found[0]], block[found[1]]

    def _verified(self, block: Ints, pairs: Pairs) -> Pairs:
        """Those of some pairs of places in ``block`` that are near."""
        if not len(pairs[0]):
            return pairs
        near: list[npt.NDArray[np.bool_]] = []
        for part in chunks(len(pairs[0]), PAIRS):
            left, right = pairs[0][part], pairs[1][part]
            places, index = np.unique(np.concatenate([left, right]), return_inverse=True)
            values = self.nearness.parse(self.values.read(block[places]))
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
            self._join(self.pool.map(lambda part: self._near_to(rows, places, part), chunks(len(rows), BLOCK)))  # noqa: B023

    def _near_to(self, rows: Ints, places: Ints, part: slice) -> Pairs:
        """The rows of ``part`` that are near to the rows at ``places`` of theirs, with these."""
        left, right = rows[places[part]], rows[part]
        apart = np.flatnonzero(self.labels[left] != self.labels[right])
        outlines = [self.values.outlines(side[apart]) for side in (left, right)]
        apart = apart[self.nearness.may_be_near(*outlines)]
        block = np.concatenate([left, right])
        near = self._verified(block, (apart, apart + len(left)))
        return block[near[0]], block[near[1]]

    def _join(self, found: Iterator[Pairs]) -> None:
        self.labels = _merged(self.labels, joined(list(found)), is_leader=True)


def bucket_keys(values: Values, count: int, pool: ThreadPoolExecutor, *, table: int, depth: int) -> tuple[Words, Words]:
    """Of every value a key of the first ``depth`` components of a table, and one that further components refine.

    The second one has the first 32 bits of the first, and then ``LEVEL_BITS`` of each of ``LEVELS`` components more:
    values that share these components too have neighbouring keys.
    """
    keys, refined = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    last = min(values.nearness.MAX_DEPTH, depth + LEVELS)

    def mix(part: slice) -> None:
        rows = np.arange(part.start, part.stop, dtype=np.int64)
        found = values.nearness.components(values.outlines(rows), table=table, first=0, last=last)
        mixed = keys[part]
        columns = np.ascontiguousarray(found.T).astype(np.uint64)
        for component in columns[:depth]:
            mixed = _mix(mixed ^ component)
        keys[part] = mixed
        bits = mixed >> np.uint64(32) << np.uint64(32)
        for level, component in enumerate(columns[depth:]):
            bits |= (component & np.uint64((1 << LEVEL_BITS) - 1)) << np.uint64(32 - LEVEL_BITS * (level + 1))
        refined[part] = bits

    for _ in pool.map(mix, chunks(count, BLOCK)):
        pass
    return keys, refined


def deepen(
    rows: Ints, keys: Words, values: Values, pool: ThreadPoolExecutor, *, table: int, first: int, last: int
) -> None:
    """Mixes components ``first`` to ``last`` of a table into the ``keys`` of some rows."""

    def mix(part: slice) -> None:
        found = values.nearness.components(values.outlines(rows[part]), table=table, first=first, last=last)
        mixed = keys[part]
        for component in np.ascontiguousarray(found.T):
            mixed = _mix(mixed ^ component.astype(np.uint64))
        keys[part] = mixed

    for _ in pool.map(mix, chunks(len(rows), BLOCK)):
        pass


def taking(array: npt.NDArray[Any]) -> Callable[[Ints], npt.NDArray[Any]]:
    """Reads rows of an array by their number."""
    return lambda rows: array.take(rows, axis=0)


def no_pairs() -> Pairs:
    """Nothing."""
    return np.zeros(0, np.int64), np.zeros(0, np.int64)


def joined(pairs: Sequence[Pairs]) -> Pairs:
    """Pairs one after the other."""
    every = [*pairs, no_pairs()]
    return np.concatenate([pair[0] for pair in every]), np.concatenate([pair[1] for pair in every])


def _merged(labels: Ints, pairs: Pairs, *, is_leader: bool = False) -> Ints:
    """Labels in which the places of every pair have the same one, the smallest of those that they are connected with.

    ``is_leader`` says that a label is itself the place of one that has it.
    """
    if not len(pairs[0]):
        return labels
    if not is_leader:
        return renamed(labels, (labels[pairs[0]], labels[pairs[1]]))
    known, merged = _connected((labels[pairs[0]], labels[pairs[1]]))
    leader = np.arange(len(labels), dtype=np.int64)
    leader[known] = merged
    return leader[labels]


def renamed(labels: Ints, pairs: Pairs) -> Ints:
    """Labels in which those of every pair are one, the smallest of those that they are connected with."""
    if not len(pairs[0]):
        return labels
    known, merged = _connected(pairs)
    place = np.minimum(np.searchsorted(known, labels), len(known) - 1)
    return np.where(known[place] == labels, merged[place], labels)


def _connected(pairs: Pairs) -> Pairs:
    """The labels that occur in some pairs of them, ascending, and the smallest that each is connected with."""
    known, numbers = np.unique(np.concatenate(pairs), return_inverse=True)
    count = np.arange(len(pairs[0]), dtype=np.int64)
    return known, known[components(len(known), numbers.astype(np.int64), np.concatenate([count, count]))]
