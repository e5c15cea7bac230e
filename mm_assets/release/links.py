"""What puts samples into one leakage group: shared keys, and nearly equal blobs.

Nearly equal blobs of one group share a key. Where a parent put members of a group into different splits, every near
pair has a key of its own instead: without the sample that connects them, those that are not near to each other are
apart again, and only that sample is left out.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mm_assets.release.config import FreezeConfig
from mm_assets.release.dedup import PART_KEYS, Bools, Ints, link_expressions, shared_keys
from mm_assets.release.kept import Kept
from mm_assets.release.near import THREADS
from mm_assets.release.near_search import Found, search_lineage
from mm_assets.release.near_sets import near_pairs
from mm_assets.release.rows import Rows, idle
from mm_assets.release.signatures import NEAR, Signatures, read_signatures

#: Members of a group of which every pair is compared.
MAX_COMPARED = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class Links:
    """Pairs (row, key number), and what the keys of nearly equal blobs were made from.

    ``groups`` has, by modality and for every position, a number that samples with nearly equal blobs share, -1 where it
    has none to compare. ``found`` is what they were found by.
    """

    rows: Ints
    keys: Ints
    signatures: Mapping[str, Signatures]
    groups: Mapping[str, Ints]
    found: Mapping[str, Found]


def find_links(
    rows: Rows, config: FreezeConfig, *, kept: Kept | None = None, inherited: Ints | None = None, buckets: int = 1
) -> Links:
    """All links between rows.

    Args:
        rows: The release's.
        config: Which links count.
        kept: What ancestors kept, if rows were taken from it.
        inherited: Split each row had in the parent, -1 for a new row.
        buckets: Into how many parts the search is divided; the links are the same.
    """
    further = [PART_KEYS.format(source="samples")]
    linked, keys = shared_keys(rows.database, link_expressions(config), queries=further, buckets=buckets)
    num_rows = rows.num_rows
    # Later releases are compared with the signatures of the test split, whatever this one groups or drops.
    signatures = {name: read_signatures(rows, name, config) for name in NEAR}
    near: dict[str, Found] = {}
    if config.group_near_duplicates or config.drop_near_duplicates:
        with idle(rows.database), ThreadPoolExecutor(THREADS) as pool:
            for name, read in signatures.items():
                near[name] = search_lineage(rows, name, read, kept or Kept(), pool=pool, buckets=buckets)
    signatures |= {name: found.signatures for name, found in near.items()}
    groups: dict[str, Ints] = {}
    parts = [(linked, keys)]
    next_key = int(keys.max(initial=-1)) + 1
    for name, searched in near.items():
        found = searched.signatures
        leader = found.position[searched.leader]
        groups[name] = found.groups_of_samples(leader, num_rows)
        torn = _torn(num_rows, found.position, leader, inherited)
        size = np.bincount(leader, minlength=num_rows)
        shared = (size[leader] > 1) & ~torn[leader]
        parts.append((found.position[shared], next_key + leader[shared]))
        next_key += num_rows
        for group in np.flatnonzero(torn):
            pairs = _near_pairs(found, np.flatnonzero(leader == group))
            parts.append((pairs.ravel(), next_key + np.repeat(np.arange(len(pairs)), 2)))
            next_key += len(pairs)
    if not config.group_near_duplicates:
        parts = parts[:1]
    return Links(
        rows=np.concatenate([part[0] for part in parts]),
        keys=np.concatenate([part[1] for part in parts]),
        signatures=signatures,
        groups=groups,
        found=near,
    )


def _torn(num_rows: int, position: Ints, leader: Ints, inherited: Ints | None) -> Bools:
    """By position of its first member, whether a group has members of the parent in different splits."""
    bits = np.zeros(num_rows, dtype=np.int64)
    if inherited is not None:
        old = np.flatnonzero(inherited[position] >= 0)
        np.bitwise_or.at(bits, leader[old], np.left_shift(1, inherited[position[old]]))
    return (bits & (bits - 1)) != 0


def _near_pairs(found: Signatures, members: Ints) -> Ints:
    """The positions [pairs, 2] of pairs of members, rows of ``found``, that are near to each other.

    Of a group of more than ``MAX_COMPARED`` members, pairs of neighbours: comparing all would be quadratic.
    """
    if len(members) > MAX_COMPARED:
        return found.position[members][near_pairs(found.read(members), found.nearness)]
    values, position = found.values(members), found.position[members]
    pairs: list[Ints] = [np.zeros((0, 2), dtype=np.int64)]
    for one in range(len(members) - 1):
        others = values[one + 1 :]
        near = np.flatnonzero(found.nearness.are_near(np.broadcast_to(values[one], others.shape), others))
        pairs.append(np.stack([np.full(len(near), position[one]), position[one + 1 + near]], axis=1))
    return np.concatenate(pairs)
