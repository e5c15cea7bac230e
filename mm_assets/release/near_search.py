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
from mm_assets.release.dedup import Ints
from mm_assets.release.generations import (
    Generation,
    gather,
    in_buckets,
    is_current,
    keys_of,
    with_values,
    write_generation,
    write_keys,
)
from mm_assets.release.kept import Kept
from mm_assets.release.near import (
    Groups,
    Pairs,
    Read,
    Values,
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
        keys = keys_of(values, count, pool, table=table, depth=depth)
        write_keys(generation, table, nearness.NUM_TABLES, keys[number])
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
    values, first_row, number = np.unique(new.array("values"), return_index=True, return_inverse=True)
    own = new.first + first_row.astype(np.int64)
    equal, known = with_values(before, values, pool)
    is_known = np.isin(values, known, assume_unique=True)
    of_value = own.copy()
    of_value[is_known] = leader[equal]
    every = np.concatenate([leader, of_value[number]])
    lineage = [*before, new]
    search = _Further(lineage, every, new.first, nearness, pool, most_in_bucket(len(every), nearness))
    outlines = np.load(new.files["outlines"])
    made = Values(outlines=taking(outlines), read=_reading(lineage, nearness), nearness=nearness)
    for table in range(nearness.NUM_TABLES):
        keys = keys_of(made, new.count, pool, table=table, depth=depth)
        write_keys(new, table, nearness.NUM_TABLES, keys)
        asked = keys[first_row[~is_known]]
        old, old_values = in_buckets(before, table, asked, pool)
        members = np.concatenate([old, own[~is_known]])
        order = np.argsort(np.concatenate([old_values, values[~is_known]]))
        search.compare(members[order], table=table, depth=depth)
    return renamed(every, search.pairs)


class _Further:
    """The search for pairs with a new signature; ``pairs`` has the leaders of groups that turned out to be one."""

    def __init__(
        self,
        lineage: Sequence[Generation],
        leader: Ints,
        first: int,
        nearness: Any,
        pool: ThreadPoolExecutor,
        limit: int,
    ) -> None:
        self.lineage, self.leader, self.first, self.nearness = lineage, leader, first, nearness
        self.pool, self.limit = pool, limit
        self.pairs: Pairs = no_pairs()

    def compare(self, members: Ints, *, table: int, depth: int) -> None:
        """Looks for pairs among signatures of different values that are in the order of their values."""
        if len(members) < 2:
            return
        current = renamed(self.leader[members], self.pairs)
        _, first, number = np.unique(current, return_index=True, return_inverse=True)
        # A label is the place of the first member of a group.
        labels = first[number].astype(np.int64)
        values = Values(
            outlines=taking(gather(self.lineage, "outlines", members)),
            read=lambda rows: gather(self.lineage, "signatures", members[rows]),
            nearness=self.nearness,
            is_new=members >= self.first,
        )
        groups = Groups(values, labels, self.pool, limit=self.limit)
        groups.search(keys_of(values, len(members), self.pool, table=table, depth=depth), table=table, depth=depth)
        moved = np.flatnonzero(groups.labels != labels)
        self.pairs = joined([self.pairs, (current[moved], current[groups.labels[moved]])])


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

    ``given`` are the signatures of the others. Where code that makes other arrays kept them, every generation is searched again.
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
