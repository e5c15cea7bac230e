"""Curation: which samples a release selects, and why the others are excluded.

A policy has an SQL expression over a sample's own signals per reason. None may look at other samples, a clock or a
random generator, so a sample's verdict depends on that sample alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np

from mm_assets.checks.exclusions import glob_regex, is_glob
from mm_assets.errors import SpecError
from mm_assets.release.config import FreezeConfig
from mm_assets.release.dedup import Bools, register_positions, shared_keys
from mm_assets.release.expressions import require_usable
from mm_assets.release.policies import Policy
from mm_assets.release.rows import POLICY_SCHEMA


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdicts:
    """Which rules exclude a row; arrays in the order of ``position``.

    ``refused`` holds, by reason of the policy, the rows it leaves out.
    ``unused_exclusions`` are entries of the spec that name no sample.
    """

    excluded: Bools
    refused: Mapping[str, Bools]
    repeated_id: Bools
    unlabelled: Bools
    unused_exclusions: tuple[str, ...]

    @property
    def eligible(self) -> Bools:
        """Rows that no rule excludes."""
        result = ~(self.excluded | self.repeated_id | self.unlabelled)
        for rows in self.refused.values():
            result &= ~rows
        return result


def check_policy(policy: Policy) -> None:
    """Refuses a policy whose expressions cannot judge a sample by its own signals.

    Raises:
        SpecError: one is no expression, is not yes or no, names an unknown column, or depends on anything else.
    """
    if policy.keep is not None:
        require_usable(f"policy {policy.name}", policy.keep, POLICY_SCHEMA)
    for reason, sql in policy.exclude.items():
        require_usable(f"policy {policy.name}: {reason}", sql, POLICY_SCHEMA)


def judge(
    database: duckdb.DuckDBPyConnection,
    *,
    policy: Policy,
    exclusions: Sequence[str],
    config: FreezeConfig,
) -> Verdicts:
    """Applies the spec's exclusions, its policy and the label rule to every row of ``samples``.

    Raises:
        SpecError: the policy is unusable.
    """
    check_policy(policy)
    excluded, unused = _exclusions(database, exclusions)
    refused = {reason: _evaluate(database, policy, sql) for reason, sql in policy.expressions.items()}
    repeated = _repeated(database, len(excluded))
    unlabelled = _column(database, "label IS NULL" if config.labels == "required" else "FALSE")
    return Verdicts(
        excluded=excluded, refused=refused, repeated_id=repeated, unlabelled=unlabelled, unused_exclusions=unused
    )


def verdict_sql(expression: str) -> str:
    """An expression that is TRUE where ``expression`` leaves a sample out, and FALSE where it is unknown."""
    # The newline ends a comment in the expression.
    return f"coalesce((\n{expression}\n), FALSE)"


def _evaluate(database: duckdb.DuckDBPyConnection, policy: Policy, expression: str) -> Bools:
    try:
        return _column(database, verdict_sql(expression))
    except duckdb.Error as error:
        # What depends on the values, such as a cast of a text that is no number.
        problem = str(error).split("\n\nLINE")[0].replace("\n", " ").strip()
        raise SpecError(
            f"policy {policy.name}: {problem}, got {expression!r}. Correct the expression and open the release again."
        ) from error


def _column(database: duckdb.DuckDBPyConnection, expression: str) -> Bools:
    found = database.execute(f"SELECT {expression} AS verdict FROM samples").fetchnumpy()["verdict"]
    return np.asarray(found, dtype=np.bool_)


def _repeated(database: duckdb.DuckDBPyConnection, num_rows: int) -> Bools:
    """Rows with the id of a row that comes before them."""
    result = np.zeros(num_rows, dtype=np.bool_)
    register_positions(database, "asked", np.unique(shared_keys(database, ["id"])[0]))
    found = database.execute(
        """SELECT position FROM samples SEMI JOIN asked USING (position)
           QUALIFY row_number() OVER (PARTITION BY id ORDER BY generation, shard, row) > 1"""
    ).fetchnumpy()
    result[found["position"]] = True
    return result


def _exclusions(database: duckdb.DuckDBPyConnection, patterns: Sequence[str]) -> tuple[Bools, tuple[str, ...]]:
    """Rows whose id equals a pattern or matches it as a glob (``*``, ``?``, ``[...]``), and patterns without any."""
    num_rows = database.execute("SELECT count(*) FROM samples").fetchall()[0][0]
    excluded = np.zeros(num_rows, dtype=np.bool_)
    unused: list[str] = []
    for pattern in sorted(set(patterns)):
        test, values = "id = $1", [pattern]
        if is_glob(pattern):
            test, values = "id = $1 OR regexp_full_match(id, $2)", [pattern, glob_regex(pattern)]
        found = database.execute(f"SELECT position FROM samples WHERE {test}", values).fetchnumpy()["position"]
        excluded[found] = True
        if len(found) == 0:
            unused.append(pattern)
    return excluded, tuple(unused)
