"""Which samples are copies, and which must stay together: keys from signal columns, and their connected components.

A **duplicate** has the same modalities as another sample and every one of them equal: pixels, decoded sound and
normalised text. One picture with its name in four languages is therefore four samples. A **near duplicate** has equal
text, and pictures and sound that are nearly equal (``near.py`` finds them). A **leakage group** is wider: whatever
shares a declared group, or has an equal or nearly equal picture, recording or long text, must not be split between
training and testing, whether or not it is a copy.
"""

from collections.abc import Sequence
from typing import TypeAlias

import duckdb
import numpy as np
import numpy.typing as npt

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
    database: duckdb.DuckDBPyConnection,
    expressions: list[str],
    *,
    column: str = "position",
    where: str = "TRUE",
    queries: Sequence[str] = (),
) -> tuple[Ints, Ints]:
    """Pairs (row, key number) of every key that at least two rows share.

    Args:
        database: Holds ``samples``.
        expressions: SQL expressions for keys; rows with NULL have no key.
        column: How a row is named: ``position`` or ``seniority``.
        where: Which rows take part.
        queries: SQL queries for further pairs of ``position`` and ``key``.
    """
    union = " UNION ALL ".join(
        [
            *(f"SELECT {column} AS row, {expression} AS key FROM samples WHERE {where}" for expression in expressions),
            *(f"SELECT position AS row, key FROM ({further})" for further in queries),
        ]
    )
    found = database.execute(
        f"""WITH keyed AS ({union}), shared AS (
              SELECT key, row_number() OVER () - 1 AS number FROM keyed WHERE key IS NOT NULL GROUP BY key
              HAVING count(*) > 1)
            SELECT row, number FROM keyed JOIN shared USING (key)"""
    ).fetchnumpy()
    return np.asarray(found["row"], dtype=np.int64), np.asarray(found["number"], dtype=np.int64)


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
