"""How large the leakage groups of a release are.

What is near belongs together, and so does what is near to that: a chain of slowly changing pictures is one group and
comes whole into one split. Whether a sample is left out as a near duplicate never follows a chain (``originals.py``).
"""

from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from mm_assets.identity.canonical import Json
from mm_assets.release.dedup import Ints

#: Of the selected samples: a larger group is more than a split of a tenth can hold.
MAX_SHARE = 0.1
DECIMALS = 6


def describe_groups(database: duckdb.DuckDBPyConnection, groups: Ints) -> dict[str, Json]:
    """Numbers of groups with selected samples, and the largest one: its samples, their share, its first id.

    Args:
        database: Holds ``judged``.
        groups: By position the smallest position of its leakage group.
    """
    found: Any = database.execute("SELECT selected FROM judged").fetchnumpy()["selected"]
    of_selected = groups[np.asarray(found, dtype=np.bool_)]
    leaders, sizes = np.unique(of_selected, return_counts=True)
    largest = int(sizes.max(initial=0))
    return {
        "num_groups": len(leaders),
        "num_several": int((sizes > 1).sum()),
        "largest": largest,
        "largest_share": round(largest / max(1, len(of_selected)), DECIMALS),
        "largest_id": _first_id(database, groups, leaders[sizes == largest]) if largest else None,
        "limit": MAX_SHARE,
    }


def _first_id(database: duckdb.DuckDBPyConnection, groups: Ints, leaders: Ints) -> str:
    """The smallest selected id of some groups."""
    database.register("grouped_rows", pa.table({"position": np.flatnonzero(np.isin(groups, leaders))}))
    return str(
        database.execute(
            "SELECT min(id) FROM judged SEMI JOIN grouped_rows USING (position) WHERE selected"
        ).fetchall()[0][0]
    )
