"""What puts samples into one leakage group: shared keys, and nearly equal blobs."""

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
import numpy as np

from mm_assets.release.config import FreezeConfig
from mm_assets.release.dedup import Ints, link_expressions, shared_keys
from mm_assets.release.signatures import NEAR, Signatures, read_signatures


@dataclass(frozen=True, kw_only=True, slots=True)
class Links:
    """Pairs (row, key number), and what the keys of nearly equal blobs were made from.

    ``groups`` has, by modality and for every position, the smallest position of its group of nearly equal blobs, -1
    where it has none to compare.
    """

    rows: Ints
    keys: Ints
    signatures: Mapping[str, Signatures]
    groups: Mapping[str, Ints]


def find_links(database: duckdb.DuckDBPyConnection, config: FreezeConfig) -> Links:
    """All links of the rows of ``samples``."""
    rows, keys = shared_keys(database, link_expressions(config))
    (num_rows,) = database.execute("SELECT count(*) FROM samples").fetchall()[0]
    is_wanted = config.group_near_duplicates or config.drop_near_duplicates
    signatures = {name: read_signatures(database, name, config) for name in NEAR} if is_wanted else {}
    groups: dict[str, Ints] = {}
    parts = [(rows, keys)]
    next_key = int(keys.max(initial=-1)) + 1
    for name, found in signatures.items():
        leader = found.groups()
        groups[name] = np.full(num_rows, -1, dtype=np.int64)
        groups[name][found.position] = leader
        size = np.bincount(leader, minlength=num_rows)
        shared = size[leader] > 1
        parts.append((found.position[shared], next_key + leader[shared]))
        next_key += num_rows
    if not config.group_near_duplicates:
        parts = parts[:1]
    return Links(
        rows=np.concatenate([part[0] for part in parts]),
        keys=np.concatenate([part[1] for part in parts]),
        signatures=signatures,
        groups=groups,
    )
