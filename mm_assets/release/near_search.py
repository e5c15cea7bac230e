"""Groups of nearly equal signatures of a lineage, generation by generation.

The first generation is searched as a whole (``near.py``). A further one is searched among all signatures before it and
itself: pairs without a new signature are not looked at again, so the work grows with what is new. Which groups there
are depends on the signatures of every generation alone, and is the same whether earlier generations were searched by
the release's ancestors or are searched now.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from mm_assets.modalities.table import MODALITIES
from mm_assets.release.dedup import Bools, Ints
from mm_assets.release.generations import (
    Generation,
    gather,
    in_buckets,
    is_current,
    write_generation,
    write_keys,
)
from mm_assets.release.kept import Kept
from mm_assets.release.near import (
    BLOCK,
    LEVEL_BITS,
    LEVELS,
    PAIRS,
    Groups,
    Pairs,
    Read,
    Values,
    Words,
    bucket_keys,
    chunks,
    first_depth,
    joined,
    most_in_bucket,
    no_pairs,
    renamed,
    taking,
)
from mm_assets.release.rows import Rows
from mm_assets.release.signatures import Signatures

logger = logging.getLogger(__name__)


def search_first(generation: Generation, nearness: Any, pool: ThreadPoolExecutor, *, buckets: int) -> tuple[Ints, int]:
    """The smallest signature of the group of every one, and how many components decide the first buckets.

    Writes the keys of the generation. ``buckets`` divides every table by the first bits of its keys, a power of two:
    one part can be searched apart from the others, with less memory. It changes nothing else.
    """
    _, first_row, number = np.unique(generation.array("values"), return_index=True, return_inverse=True)
    outlines = np.load(generation.files["outlines"])
    values = Values(
        outlines=lambda rows: outlines.take(first_row[rows], axis=0),
        read=lambda rows: np.asarray(generation.array("signatures")[first_row[rows]]),
        nearness=nearness,
    )
    count = len(first_row)
    groups = Groups(values, np.arange(count, dtype=np.int64), pool, limit=most_in_bucket(count, nearness))
    depth = first_depth(count, nearness)
    for table in range(nearness.NUM_TABLES):
        keys, refined = bucket_keys(values, count, pool, table=table, depth=depth)
        write_keys(generation, table, nearness.NUM_TABLES, refined[number])
        if count > 1:
            groups.search(keys, table=table, depth=depth, buckets=buckets)
    leader = np.full(count, generation.count, dtype=np.int64)
    np.minimum.at(leader, groups.labels, first_row)
    return leader[groups.labels][number], depth


def search_further(
    before: Sequence[Generation],
    leader: Ints,
    new: Generation,
    nearness: Any,
    pool: ThreadPoolExecutor,
    *,
    depth: int,
) -> Ints:
    """The smallest signature of the group of every one, those of ``new`` included, whose keys are written.

    Args:
        before: All generations before it, at least one.
        leader: The smallest signature of the group of each of theirs.
        new: What is added.
        nearness: The modality's aspect.
        pool: Works for it.
        depth: How many components decide the first buckets.
    """
    old_values, old_first = np.unique(
        np.concatenate([generation.array("values") for generation in before]), return_index=True
    )
    values, first_row, number = np.unique(new.array("values"), return_index=True, return_inverse=True)
    place = np.minimum(np.searchsorted(old_values, values), len(old_values) - 1)
    is_known = old_values[place] == values
    of_value = np.where(is_known, leader[old_first[place]], new.first + first_row)
    every = np.concatenate([leader, of_value[number]])
    is_first = np.zeros(len(leader), np.bool_)
    is_first[old_first] = True
    asked = first_row[~is_known]
    search = _Further([*before, new], every, nearness, pool, most_in_bucket(len(every), nearness))
    outlines = np.load(new.files["outlines"])
    made = Values(outlines=taking(outlines), read=_reading([new], nearness), nearness=nearness)
    for table in range(nearness.NUM_TABLES):
        _, keys = bucket_keys(made, new.count, pool, table=table, depth=depth)
        write_keys(new, table, nearness.NUM_TABLES, keys)
        old, old_keys = in_buckets(before, table, keys[asked], pool)
        once = is_first[old]
        search.compare(new.first + asked, keys[asked], old[once], old_keys[once])
    return renamed(every, search.pairs)


class _Further:
    """The search for pairs with a new signature; ``pairs`` has the leaders of groups that turned out to be one.

    A new signature is compared with all that are in its bucket. Of a bucket with more than ``limit`` it is those that
    also share further components, as few of these as it takes; where all do not suffice, ``limit`` of them.
    """

    def __init__(
        self, lineage: Sequence[Generation], leader: Ints, nearness: Any, pool: ThreadPoolExecutor, limit: int
    ) -> None:
        self.lineage, self.leader, self.nearness, self.pool, self.limit = lineage, leader, nearness, pool, limit
        self.pairs: Pairs = no_pairs()

    def compare(self, new: Ints, new_keys: Words, old: Ints, old_keys: Words) -> None:
        """One table: signatures of different values, and their refined keys."""
        members, keys = np.concatenate([old, new]), np.concatenate([old_keys, new_keys])
        order = np.argsort(keys, kind="stable")
        members, keys = members[order], keys[order]
        order = np.argsort(new_keys, kind="stable")
        new, first, end = new[order], *_ranges(keys, new_keys[order], self.limit)
        is_large = end - first > self.limit
        if is_large.any():
            self._order_by_value(members, keys, first[is_large], end[is_large])
            end[is_large] = first[is_large] + self.limit
        count = end - first
        for part in chunks(len(new), BLOCK):
            left = np.repeat(new[part], count[part])
            step = np.arange(len(left)) - np.repeat(np.cumsum(count[part]) - count[part], count[part])
            self._join(left, members[np.repeat(first[part], count[part]) + step])

    def _order_by_value(self, members: Ints, keys: Words, first: Ints, end: Ints) -> None:
        """Orders members of equal keys by what they are, not by when they came."""
        steps = np.zeros(len(members) + 1, np.int64)
        steps[np.unique(first)] += 1
        steps[np.unique(end)] -= 1
        rows = np.flatnonzero(np.cumsum(steps[:-1]))
        values = gather(self.lineage, "values", members[rows])
        members[rows] = members[rows][np.lexsort([values, keys[rows]])]

    def _join(self, left: Ints, right: Ints) -> None:
        """Compares pairs of signatures that are not known to be of one group."""
        one, other = (renamed(self.leader[side], self.pairs) for side in (left, right))
        rows = np.flatnonzero(one != other)
        near = self.pool.map(lambda part: self._are_near(left[rows[part]], right[rows[part]]), chunks(len(rows), PAIRS))
        kept = rows[np.concatenate([np.zeros(0, np.bool_), *near])]
        self.pairs = joined([self.pairs, (one[kept], other[kept])])

    def _are_near(self, left: Ints, right: Ints) -> Bools:
        result = self.nearness.may_be_near(*(gather(self.lineage, "outlines", side) for side in (left, right)))
        rows = np.flatnonzero(result)
        if len(rows):
            sides = (self.nearness.parse(gather(self.lineage, "signatures", side[rows])) for side in (left, right))
            result[rows] = self.nearness.are_near(*sides)
        return result


def _ranges(keys: Words, asked: Words, limit: int) -> Pairs:
    """For every key where those of ``keys`` begin and end that share the fewest levels that ``limit`` allows."""
    first, end = np.zeros(len(asked), np.int64), np.zeros(len(asked), np.int64)
    rows = np.arange(len(asked), dtype=np.int64)
    for level in range(LEVELS + 1):
        beyond = np.uint64((1 << (32 - LEVEL_BITS * level)) - 1)
        first[rows] = np.searchsorted(keys, asked[rows] & ~beyond, "left")
        end[rows] = np.searchsorted(keys, asked[rows] | beyond, "right")
        rows = rows[end[rows] - first[rows] > limit]
    return first, end


def _reading(lineage: Sequence[Generation], nearness: Any) -> Read:
    empty = np.zeros((0, nearness.NUM_BYTES), np.uint8)
    return lambda numbers: gather(lineage, "signatures", numbers) if len(numbers) else empty


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What the search found in one modality.

    Attributes:
        signatures: Of every generation.
        leader: By signature the smallest one of its group.
        depth: How many components decide the first buckets; None where there is no signature.
        written: Number and signatures of the generations that were searched now.
    """

    signatures: Signatures
    leader: Ints
    depth: int | None
    written: Sequence[tuple[int, Generation]]


def search_lineage(
    rows: Rows, modality: str, given: Signatures, kept: Kept, *, pool: ThreadPoolExecutor, buckets: int
) -> Found:
    """Searches the generations that were not kept, each among all before it.

    ``given`` are the signatures of the others. Where code that makes other arrays kept them, all are searched again.
    """
    nearness = MODALITIES[modality].aspect("nearness")
    lineage, leader, depth = (
        list(kept.generations.get(modality, [])),
        kept.leaders.get(modality),
        kept.depths.get(modality),
    )
    own, folder = given.position, rows.signatures.folder / "near" / modality
    sources = [
        (number, *_range(given, rows.generations, number)) for number in range(rows.num_kept, len(rows.generations) - 1)
    ]
    if depth is not None and not all(is_current(generation, nearness, depth, pool) for generation in lineage):
        logger.warning("dataset_release: %s signatures were kept by other code; all are searched again", modality)
        numbers = np.searchsorted(
            rows.generations, [generation.array("positions")[0] for generation in lineage], "right"
        )
        again = [
            (int(n) - 1, np.asarray(g.array("positions")), _bytes_of(g)) for n, g in zip(numbers, lineage, strict=True)
        ]
        sources, lineage, leader, depth = [*again, *sources], [], None, None
    written: list[tuple[int, Generation]] = []
    for number, positions, read in sources:
        if not len(positions):
            continue
        first = sum(generation.count for generation in lineage)
        new = write_generation(positions, read, nearness, folder / str(number), first=first, pool=pool)
        if leader is None or depth is None:
            leader, depth = search_first(new, nearness, pool, buckets=buckets)
        else:
            leader = search_further(lineage, leader, new, nearness, pool, depth=depth)
        lineage.append(new)
        written.append((number, new))
    position = np.concatenate([own[:0], *(np.asarray(generation.array("positions")) for generation in lineage)])
    return Found(
        signatures=Signatures(position=position, read=_reading(lineage, nearness), nearness=nearness),
        leader=own[:0] if leader is None else leader,
        depth=depth,
        written=written,
    )


def _range(given: Signatures, bounds: Ints, number: int) -> tuple[Ints, Read]:
    """Positions of the signatures of one generation, and how they are read."""
    first, end = np.searchsorted(given.position, bounds[number : number + 2]).tolist()
    return given.position[first:end], lambda places: given.read(first + places)


def _bytes_of(generation: Generation) -> Read:
    return lambda places: np.asarray(generation.array("signatures")[places])
