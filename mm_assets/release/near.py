"""Groups of nearly equal signatures: candidates from buckets of several tables, each pair verified by its distance.

A table puts signatures into one bucket whose first components are equal. A bucket with more than ``limit`` signatures
is divided by further components, so that work is bounded by the number of signatures; where a table has no further
component, the members of a bucket are compared with its first ones and with their neighbours, and none is skipped. A
pair that one table separates, another one brings together.

The answer depends on the set of signatures alone: not on their order, nor on how often each occurs.

Source: LSH forests, Bawa et al. 2005, "LSH forest: self-tuning indexes for similarity search".
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from mm_assets.release.dedup import Ints, components

#: Comparisons of all tables together grow by this per signature at most.
COMPARISONS = 60_000_000
SMALLEST_BUCKET, LARGEST_BUCKET = 8, 64
#: Members at the front of an undividable bucket that all others are compared with.
LEADERS = 8
#: Pairs that are verified at a time.
CHUNK = 1 << 16
#: A component tells about this many bits; used only for the depth at which tables begin.
BITS_PER_COMPONENT = 3

Words = npt.NDArray[np.uint64]


def near_groups(signatures: npt.NDArray[np.uint8], nearness: Any) -> Ints:
    """For every row the smallest row of its group: rows connected by pairs that are near.

    Args:
        signatures: [rows, bytes], as the modality's ``nearness`` describes them.
        nearness: That aspect.
    """
    first_row, number = distinct(signatures)
    values = nearness.parse(signatures[first_row])
    of_value = _Groups(values, nearness).find()
    leader = np.full(len(first_row), len(signatures), dtype=np.int64)
    np.minimum.at(leader, of_value, first_row)
    return leader[of_value][number]


def distinct(signatures: npt.NDArray[np.uint8]) -> tuple[Ints, Ints]:
    """A row of each distinct signature, in an order that only the signatures decide, and the number of every row's."""
    keys = np.zeros(len(signatures), np.uint64)
    width = signatures.shape[1]
    padded = np.zeros((len(signatures), -(-width // 8) * 8), np.uint8)
    padded[:, :width] = signatures
    for word in padded.view("<u8").T:
        keys = _mix(keys ^ word)
    _, first_row, number = np.unique(keys, return_index=True, return_inverse=True)
    return first_row.astype(np.int64), number.astype(np.int64)


def _mix(words: Words) -> Words:
    """A bijection of 64-bit words. Source: SplitMix64, Steele et al. 2014."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _places(keys: Words) -> tuple[Ints, Ints]:
    """For sorted keys how many are equal to each, and how many places each is before the end of its equals."""
    start = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, np.int64)
    count = np.diff(np.append(start, len(keys)))
    return np.repeat(count, count), np.repeat(start + count, count) - np.arange(len(keys))


class _Groups:
    """The search over distinct values; ``labels`` holds the smallest row that each is known to be connected with."""

    def __init__(self, values: npt.NDArray[Any], nearness: Any) -> None:
        self.values, self.nearness = values, nearness
        self.outlines = nearness.outlines(values)
        self.labels: Ints = np.arange(len(values), dtype=np.int64)
        per_value = 2 * COMPARISONS // max(1, len(values) * nearness.NUM_TABLES)
        self.limit = int(np.clip(per_value, SMALLEST_BUCKET, LARGEST_BUCKET))

    def find(self) -> Ints:
        num_values = len(self.values)
        if num_values < 2:
            return self.labels
        bits = max(0, (num_values // self.limit).bit_length() - 1)
        start = min(self.nearness.MAX_DEPTH, max(1, bits // BITS_PER_COMPONENT))
        for table in range(self.nearness.NUM_TABLES):
            self._search(table, start)
        return self.labels

    def _search(self, table: int, start: int) -> None:
        """One table, level by level: small buckets are compared, large ones go to the next level."""
        rows = np.arange(len(self.values), dtype=np.int64)
        keys = np.zeros(len(rows), np.uint64)
        depth, reached = 0, start
        while len(rows):
            keys = self._deeper(rows, keys, table=table, first=depth, last=reached)
            order = np.argsort(keys)
            rows, keys = rows[order], keys[order]
            size, remaining = _places(keys)
            small = size <= self.limit
            self._compare(rows[small], remaining[small])
            rows, keys = rows[~small], keys[~small]
            if reached >= self.nearness.MAX_DEPTH:
                self._compare_large(rows[np.lexsort([rows, keys])], np.sort(keys))
                return
            depth, reached = reached, reached + 1

    def _deeper(self, rows: Ints, keys: Words, *, table: int, first: int, last: int) -> Words:
        keys = keys.copy()
        for begin in range(0, len(rows), CHUNK):
            part = slice(begin, begin + CHUNK)
            found = self.nearness.components(self.outlines[rows[part]], table=table, first=first, last=last)
            for component in found.T:
                keys[part] = _mix(keys[part] ^ component.astype(np.uint64))
        return keys

    def _compare(self, rows: Ints, remaining: Ints) -> None:
        """Every pair of rows of one bucket that are less than ``limit`` places apart.

        Args:
            rows: Buckets one after the other.
            remaining: How many places each row is before the end of its bucket.
        """
        places = np.flatnonzero(remaining > 1)
        pending: list[tuple[Ints, Ints]] = []
        num_pending, linked_at = 0, 1
        for distance in range(1, self.limit):
            places = places[remaining[places] > distance]
            if not len(places):
                break
            pending.append((rows[places], rows[places + distance]))
            num_pending += len(places)
            if distance >= linked_at or num_pending >= CHUNK:
                self._verify(pending)
                pending, num_pending, linked_at = [], 0, 2 * distance
        self._verify(pending)

    def _compare_large(self, rows: Ints, keys: Words) -> None:
        size, remaining = _places(keys)
        self._compare(rows, remaining)
        begin = np.arange(len(rows)) - (size - remaining)
        for leader in range(LEADERS):
            self._verify([(rows[begin + np.minimum(leader, size - 1)], rows)])

    def _verify(self, pairs: list[tuple[Ints, Ints]]) -> None:
        """Joins the groups of those pairs that are near; pairs of one group are not looked at again."""
        if not pairs:
            return
        left = np.concatenate([pair[0] for pair in pairs])
        right = np.concatenate([pair[1] for pair in pairs])
        apart = self.labels[left] != self.labels[right]
        left, right = left[apart], right[apart]
        near: list[Ints] = []
        for begin in range(0, len(left), CHUNK):
            place = np.arange(begin, min(begin + CHUNK, len(left)))
            place = place[self.nearness.may_be_near(self.outlines[left[place]], self.outlines[right[place]])]
            near.append(place[self.nearness.are_near(self.values[left[place]], self.values[right[place]])])
        joined = np.concatenate([np.zeros(0, np.int64), *near])
        if len(joined):
            self._join(left[joined], right[joined])

    def _join(self, left: Ints, right: Ints) -> None:
        rows, numbers = np.unique(self.labels[np.concatenate([left, right])], return_inverse=True)
        count = np.arange(len(left), dtype=np.int64)
        merged = components(len(rows), numbers.astype(np.int64), np.concatenate([count, count]))
        leader = self.labels.copy()
        leader[rows] = rows[merged]
        self.labels = leader[self.labels]
