"""Which samples are copies, and which must stay together: keys from signal columns, and their connected components.

A **duplicate** has the same modalities as another sample and every one of them equal: pixels, decoded sound and
normalised text. One picture with its name in four languages is therefore four samples. A **near duplicate** has equal
text, and pictures and sound that are nearly equal (``near.py`` finds them). A **leakage group** is wider: whatever
shares a declared group, or has an equal or nearly equal picture, recording or long text, must not be split between
training and testing, whether or not it is a copy.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mm_assets.modalities.table import CAUSAL, MODALITIES, NAMES
from mm_assets.release.config import FreezeConfig

Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

#: Position and key of every part of a sample but its texts.
PART_KEYS = (
    "SELECT position, part.modality || '|' || part.digest AS key FROM "
    "(SELECT position, unnest(parts) AS part FROM {source} WHERE parts IS NOT NULL) "
    f"WHERE part.modality NOT IN ({', '.join(repr(name) for name in CAUSAL)})"
)
_DIGESTS = {name: row.digest_column for name, row in MODALITIES.items()}
_EACH_HAS_DIGEST = " AND ".join(f"has_{name} = ({digest} IS NOT NULL)" for name, digest in _DIGESTS.items())
_ANY_PRESENT = " OR ".join(f"has_{name}" for name in NAMES)
#: Equal for samples all of whose modalities are equal; NULL where a digest is missing, which equals nothing.
CONTENT = f"""CASE WHEN {_EACH_HAS_DIGEST} AND ({_ANY_PRESENT})
    THEN concat_ws('|', 'content', {", ".join(f"coalesce({digest}, '-')" for digest in _DIGESTS.values())}) END"""


def link_expressions(config: FreezeConfig) -> list[str]:
    """SQL expressions whose equal values put samples into one leakage group."""
    return [
        "'id|' || id",
        "'group|' || source || '|' || \"group\"",
        *(_link(name, digest, config) for name, digest in _DIGESTS.items()),
        CONTENT,
    ]


def _link(name: str, digest: str, config: FreezeConfig) -> str:
    """Equal blobs belong together; of texts only long ones, because short ones are phrases that samples share."""
    key = f"'{name}|' || {digest}"
    return f"CASE WHEN {name}_chars >= {config.min_linked_text_chars} THEN {key} END" if name in CAUSAL else key


def shared_keys(
    database: duckdb.DuckDBPyConnection, expressions: list[str], *, queries: Sequence[str] = (), buckets: int = 1
) -> tuple[Ints, Ints]:
    """Pairs (position, key number) of every key that at least two rows share.

    Rows are compared by their keys where the hash of a key occurs twice: most keys are of one row alone.

    Args:
        database: Holds ``samples``.
        expressions: SQL expressions for keys; rows with NULL have no key.
        queries: SQL queries for further pairs of ``position`` and ``key``.
        buckets: Into how many parts, by the first bits of the keys' hashes, the comparison is divided; a power of two.
            Each part can be done apart from the others, and they change nothing else.
    """
    rows, keys = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    num_keys = 0
    for query in _key_queries(database, expressions, queries, buckets):
        found = database.execute(
            f"""WITH keyed AS ({query}),
                shared AS (SELECT key, row_number() OVER () - 1 AS number FROM keyed WHERE key IS NOT NULL GROUP BY key
                  HAVING count(*) > 1)
                SELECT position, number FROM keyed JOIN shared USING (key)"""
        ).fetchnumpy()
        rows.append(np.asarray(found["position"], dtype=np.int64))
        keys.append(np.asarray(found["number"], dtype=np.int64) + num_keys)
        num_keys = int(keys[-1].max(initial=num_keys - 1)) + 1
    return np.concatenate(rows), np.concatenate(keys)


def _key_queries(
    database: duckdb.DuckDBPyConnection, expressions: Sequence[str], queries: Sequence[str], buckets: int
) -> Iterator[str]:
    """Queries for ``position`` and ``key``, each to be answered before the next is asked for."""
    for expression in expressions:
        for part in _candidates(database, expression, buckets):
            register_positions(database, "candidates", part)
            yield f"SELECT position, {expression} AS key FROM samples SEMI JOIN candidates USING (position)"
    own = f"SELECT position, unnest([{', '.join(expressions)}]) AS key FROM samples"
    for query in queries:
        if database.execute(f"SELECT count(*) FROM ({query})").fetchall()[0][0]:
            # What is a part here may be the whole of another sample.
            yield f"{query} UNION ALL SELECT position, key FROM ({own}) SEMI JOIN ({query}) USING (key)"


def register_positions(database: duckdb.DuckDBPyConnection, name: str, positions: Ints) -> None:
    """The view ``name`` with the column ``position``."""
    database.register(name, pa.table({"position": positions}))


def _candidates(database: duckdb.DuckDBPyConnection, expression: str, buckets: int) -> Iterator[Ints]:
    """Positions whose key has the hash of another row's key, by bucket."""
    found = database.execute(
        f"SELECT CASE WHEN {expression} IS NOT NULL THEN hash({expression}) END AS key FROM samples"
    )
    column: Any = found.fetchnumpy()["key"]
    rows = np.flatnonzero(~np.ma.getmaskarray(column))
    keys = np.asarray(np.ma.getdata(column))[rows]
    ordered = np.sort(keys)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(repeated):
        return
    place = np.minimum(np.searchsorted(repeated, keys), len(repeated) - 1)
    is_shared = repeated[place] == keys
    rows, keys = rows[is_shared], keys[is_shared]
    for rows_of in by_bucket(keys, buckets):
        yield rows[rows_of].astype(np.int64)


def by_bucket(keys: npt.NDArray[np.uint64], buckets: int) -> Iterator[Ints]:
    """Places of the keys of every bucket that has any: keys whose first bits are equal.

    Raises:
        ValueError: ``buckets`` is not a power of two.
    """
    if buckets < 1 or buckets & (buckets - 1):
        raise ValueError(f"buckets: expected a power of two, got {buckets}.")
    if buckets == 1:
        yield np.arange(len(keys), dtype=np.int64)
        return
    of_key = keys >> np.uint64(65 - buckets.bit_length())
    for bucket in range(buckets):
        places = np.flatnonzero(of_key == bucket)
        if len(places):
            yield places


def components(num_rows: int, rows: Ints, keys: Ints) -> Ints:
    """For every row the smallest row it is connected with through shared keys.

    Every round hands each key's smallest row to its members and then halves the paths, so the number of rounds grows
    with the logarithm of the longest chain. The result does not depend on the order of the pairs.

    Args:
        num_rows: Rows are 0 .. num_rows - 1.
        rows: Row of each pair.
        keys: Key number of each pair, from 0.
    """
    smallest = np.arange(num_rows, dtype=np.int64)
    if len(rows) == 0:
        return smallest
    while True:
        of_key = np.full(int(keys.max()) + 1, num_rows, dtype=np.int64)
        np.minimum.at(of_key, keys, smallest[rows])
        # Hooking the root of a row, not the row alone, carries the minimum over to its whole tree at once.
        hooked = smallest.copy()
        np.minimum.at(hooked, smallest[rows], of_key[keys])
        np.minimum.at(hooked, rows, of_key[keys])
        while not np.array_equal(hooked, jumped := hooked[hooked]):
            hooked = jumped
        if np.array_equal(hooked, smallest):
            return smallest
        smallest = hooked
