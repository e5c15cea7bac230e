"""Which expectations can be evaluated on a part of a table at a time, and on which parts.

A pandas frame of a column takes ten times the memory of the column; a shard can hold millions of samples.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

#: Rows that become a pandas frame at a time.
PART_ROWS = 1 << 17
#: Expectations that judge every value by itself.
BY_VALUE = frozenset(
    f"expect_column_{name}"
    for name in (
        "value_lengths_to_be_between", "value_lengths_to_equal", "values_to_be_between", "values_to_be_in_set",
        "values_to_be_null", "values_to_match_like_pattern", "values_to_match_like_pattern_list",
        "values_to_match_regex", "values_to_match_regex_list", "values_to_not_be_in_set", "values_to_not_be_null",
        "values_to_not_match_like_pattern", "values_to_not_match_like_pattern_list", "values_to_not_match_regex",
        "values_to_not_match_regex_list",
    )
)  # fmt: skip
UNIQUE = "expect_column_values_to_be_unique"
#: Expectations for which a missing value is a value.
_ABOUT_NULL = frozenset({"expect_column_values_to_be_null", "expect_column_values_to_not_be_null"})


def is_divisible(kind: str) -> bool:
    """Whether the answer for a table follows from the answers for ``parts_of`` it."""
    return kind in BY_VALUE or kind == UNIQUE


def parts_of(kind: str, table: pa.Table, column: str) -> Iterator[pa.Table]:
    """The parts on which a divisible expectation about ``column`` is evaluated; they hold every failing row."""
    if kind == UNIQUE:
        # Rows of one value must be in one part.
        yield table.take(pa.array(_alike(table[column])))
        return
    for start in range(0, table.num_rows, PART_ROWS):
        yield table.slice(start, PART_ROWS)


def num_judged(kind: str, table: pa.Table, column: str) -> int:
    """Rows of a table that the expectation judges: those with a value."""
    if kind in _ABOUT_NULL:
        return table.num_rows
    return table.num_rows - int(pc.sum(pc.is_null(table[column], nan_is_null=True)).as_py() or 0)  # pyright: ignore[reportAttributeAccessIssue]


def _alike(values: pa.ChunkedArray) -> np.ndarray:
    """Rows whose value has the hash of another row's value; a missing one has none."""
    from pandas.util import hash_array

    rows = np.flatnonzero(pc.is_valid(values).to_numpy())  # pyright: ignore[reportAttributeAccessIssue]
    # Without missing values, whose presence would make numbers of one part floats and of another integers.
    present = values.drop_null()
    parts = [
        hash_array(present.slice(start, PART_ROWS).to_numpy(), categorize=False)
        for start in range(0, len(present), PART_ROWS)
    ]
    hashes = np.concatenate([np.zeros(0, np.uint64), *parts])
    ordered = np.sort(hashes)
    return rows[np.isin(hashes, ordered[1:][ordered[1:] == ordered[:-1]])]
