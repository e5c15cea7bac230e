"""Which samples are left out as duplicates, and of which original.

Equal samples have one original, the first by seniority. Of nearly equal ones, those of a parent that it selected stay;
every other one is left out if it is near to one that stays and is before it. Being near is decided for each such pair,
never along a chain: a new sample between two others cannot make one of them a duplicate of the other.
"""

from collections.abc import Mapping

import duckdb
import numpy as np

from mm_assets.modalities.parts import PARTS
from mm_assets.modalities.table import MODALITIES, NAMES
from mm_assets.release.config import FreezeConfig
from mm_assets.release.dedup import CONTENT, Bools, Ints, register_positions, shared_keys
from mm_assets.release.rows import BY_SENIORITY
from mm_assets.release.signatures import Signatures

#: Pairs that are compared at a time.
CHUNK = 1 << 16
#: Of modalities that are not compared by distance, and of texts, equal digests are asked for.
_COMPARED = tuple(name for name, row in MODALITIES.items() if row.has_nearness and not row.is_causal)
_EQUAL = ", ".join(
    [f"has_{name}" for name in NAMES]
    + [f"coalesce({row.digest_column}, '-')" for name, row in MODALITIES.items() if name not in _COMPARED]
)


def originals(
    database: duckdb.DuckDBPyConnection,
    eligible: Bools,
    config: FreezeConfig,
    *,
    signatures: Mapping[str, Signatures],
    groups: Mapping[str, Ints],
    selected_before: Bools,
) -> Ints:
    """For every position that of its original: itself, unless it is a duplicate.

    Only eligible rows take part, so that excluding an original lets one of its copies take its place.

    Args:
        database: Holds ``samples``.
        eligible: Rows that no rule excludes.
        config: Which duplicates are left out.
        signatures: By modality.
        groups: By modality, for every position the group of nearly equal ones, -1 without a signature.
        selected_before: Rows that the parent selected.
    """
    result = np.arange(len(eligible), dtype=np.int64)
    if len(eligible) == 0:
        return result
    if config.drop_duplicates:
        rows, keys = shared_keys(database, [CONTENT])
        rows, keys = rows[eligible[rows]], keys[eligible[rows]]
        order = np.lexsort([_seniority(database, rows), keys])
        rows, keys = rows[order], keys[order]
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        result[rows] = np.repeat(rows[first], np.diff(np.append(first, len(rows))))
    if config.drop_near_duplicates:
        kept = eligible & (result == np.arange(len(eligible)))
        near = _near_originals(database, kept, signatures=signatures, groups=groups, stays=selected_before)
        result = near[result]
    return result


def _near_originals(
    database: duckdb.DuckDBPyConnection,
    kept: Bools,
    *,
    signatures: Mapping[str, Signatures],
    groups: Mapping[str, Ints],
    stays: Bools,
) -> Ints:
    result = np.arange(len(kept), dtype=np.int64)
    alike, rows = _classes(database, kept, signatures, groups)
    order = np.lexsort([_seniority(database, rows), ~stays[rows], alike])
    alike, rows = alike[order], rows[order]
    # Every round compares the first row of each class with the others of it; what is near to it leaves the class.
    while len(rows):
        first = np.concatenate([[True], alike[1:] != alike[:-1]])
        leader = rows[np.flatnonzero(first)[np.cumsum(first) - 1]]
        is_open = ~first & ~stays[rows]
        copies = np.flatnonzero(is_open)
        copies = copies[_are_near(leader[copies], rows[copies], signatures, groups)]
        result[rows[copies]] = leader[copies]
        is_open[copies] = False
        others = ~first & (is_open | stays[rows])
        alike, rows = alike[others], rows[others]
    return result


def _classes(
    database: duckdb.DuckDBPyConnection, kept: Bools, signatures: Mapping[str, Signatures], groups: Mapping[str, Ints]
) -> tuple[Ints, Ints]:
    """Class number and row of rows that could be near to another one: equal in one part, in one group in the other.

    What lacks a signature, as a steady tone does, is near to what has its digest.
    """
    present = {name: _column(database, f"has_{name}").astype(np.bool_) for name in _COMPARED}
    has_all = kept & np.any([present[name] for name in _COMPARED], axis=0)
    alike: list[Ints] = []
    for name in _COMPARED:
        group = groups[name].copy() if name in groups else np.full(len(kept), -1, dtype=np.int64)
        unsigned = np.flatnonzero(has_all & present[name] & ~_is_signed(database, name, signatures, len(kept)))
        group[unsigned] = 2 * len(kept) + _digest_numbers(database, name, unsigned)
        has_all &= ~present[name] | _is_shared(group)
        alike.append(group)
    rows = np.flatnonzero(has_all)
    number = np.unique(_column(database, f"hash({_EQUAL})")[rows], return_inverse=True)[1]
    for group in alike:
        pair = number * (4 * len(kept) + 2) + group[rows] + 1
        number = np.unique(pair, return_inverse=True)[1]
    shared = np.bincount(number, minlength=1)[number] > 1
    return number[shared].astype(np.int64), rows[shared].astype(np.int64)


def _is_signed(
    database: duckdb.DuckDBPyConnection, name: str, signatures: Mapping[str, Signatures], num_rows: int
) -> Bools:
    """By position, whether every part of a modality has a signature."""
    if name not in signatures:
        return np.zeros(num_rows, dtype=np.bool_)
    expected = np.ones(num_rows, dtype=np.int64)
    found = database.execute(
        f"SELECT position, len([1 FOR part IN {PARTS} IF part.modality = '{name}']) AS number "
        f"FROM samples WHERE {PARTS} IS NOT NULL"
    ).fetchnumpy()
    # A sample of several parts may have one of this modality, which is not among them.
    expected[found["position"]] = np.maximum(1, found["number"])
    return np.bincount(signatures[name].position, minlength=num_rows) == expected


def _digest_numbers(database: duckdb.DuckDBPyConnection, name: str, rows: Ints) -> Ints:
    """For each of some positions a number that those with its digest share; one without a digest has its own."""
    if len(rows) == 0:
        return rows
    key = f"coalesce({MODALITIES[name].digest_column}, id || '|' || position)"
    return np.unique(_column(database, f"hash({key})")[rows], return_inverse=True)[1].astype(np.int64)


def _is_shared(groups: Ints) -> Bools:
    """Rows whose group has another row."""
    rows = np.flatnonzero(groups >= 0)
    size = np.bincount(groups[rows], minlength=1)
    return (groups >= 0) & (size[np.maximum(groups, 0)] > 1)


def _are_near(left: Ints, right: Ints, signatures: Mapping[str, Signatures], groups: Mapping[str, Ints]) -> Bools:
    """Whether pairs of one class are near in every modality that is compared; both rows have the same ones."""
    result = np.ones(len(left), dtype=np.bool_)
    for name in _COMPARED:
        if name in groups:
            asked = np.flatnonzero(result & (groups[name][left] >= 0))
            for start in range(0, len(asked), CHUNK):
                part = asked[start : start + CHUNK]
                result[part] = signatures[name].are_near(left[part], right[part])
    return result


def _column(database: duckdb.DuckDBPyConnection, expression: str) -> Ints:
    return np.asarray(database.execute(f"SELECT {expression} AS value FROM samples").fetchnumpy()["value"])


def _seniority(database: duckdb.DuckDBPyConnection, positions: Ints) -> Ints:
    """Places of positions, which may repeat, in the order in which an original is chosen."""
    known, index = np.unique(positions, return_inverse=True)
    register_positions(database, "asked", known)
    found = database.execute(
        f"SELECT position FROM samples SEMI JOIN asked USING (position) ORDER BY {BY_SENIORITY}"
    ).fetchnumpy()["position"]
    rank = np.empty(len(known), dtype=np.int64)
    rank[np.searchsorted(known, found)] = np.arange(len(known))
    return rank[index]
