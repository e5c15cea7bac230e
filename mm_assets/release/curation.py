"""Curation: which samples a release selects, and why the others are excluded.

A policy is one SQL expression over a sample's own signals. It may not look at other samples, a clock or a random
generator, so a sample's verdict depends on that sample alone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np

from mm_assets.errors import SpecError
from mm_assets.release.config import FreezeConfig
from mm_assets.release.dedup import Bools
from mm_assets.release.rows import POLICY_SCHEMA

_LITERAL = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
_SUBQUERY = re.compile(r"\bselect\b|\bover\s*\(|\(\s*(?:from|table|values|with|pivot|describe|show)\b", re.IGNORECASE)
_CALL = re.compile(r"\b([a-z_][a-z0-9_]*)\s*\(|\b(current_\w+|localtime\w*)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdicts:
    """Which rules exclude a row; arrays in the order of ``position``.

    ``unused_exclusions`` are entries of the spec that name no sample.
    """

    excluded: Bools
    refused: Bools
    repeated_id: Bools
    unlabelled: Bools
    unused_exclusions: tuple[str, ...]

    @property
    def eligible(self) -> Bools:
        """Rows that no rule excludes."""
        return ~(self.excluded | self.refused | self.repeated_id | self.unlabelled)


def check_policy(policy: dict[str, str]) -> None:
    """Refuses a policy that is not one repeatable yes-or-no expression over signals.

    Raises:
        SpecError: it cannot be parsed, names an unknown column, or depends on other samples, a clock or chance.
    """
    name, sql = policy["name"], policy["sql"]
    bare = _LITERAL.sub("''", sql)
    with duckdb.connect() as database:
        if _SUBQUERY.search(bare) or ";" in bare:
            raise SpecError(f"policy {name}: looks beyond one sample: expected one expression, got {sql!r}.")
        rows = database.execute("SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'")
        unstable = {row[0] for row in rows.fetchall()}
        for call, keyword in _CALL.findall(bare):
            if (call or keyword).lower() in unstable or keyword:
                raise SpecError(
                    f"policy {name}: {call or keyword} does not always give the same answer. Use signals alone."
                )
        database.register("samples", POLICY_SCHEMA.empty_table())
        _evaluate(database, policy, order="id")


def judge(
    database: duckdb.DuckDBPyConnection,
    *,
    policy: dict[str, str],
    exclusions: Sequence[str],
    config: FreezeConfig,
) -> Verdicts:
    """Applies the spec's exclusions, its policy and the label rule to every row of ``samples``.

    Raises:
        SpecError: the policy is unusable.
    """
    check_policy(policy)
    excluded, unused = _exclusions(database, exclusions)
    refused = ~_evaluate(database, policy)
    repeated = _column(database, "row_number() OVER (PARTITION BY id ORDER BY generation, shard, row) > 1")
    unlabelled = _column(database, "label IS NULL" if config.labels == "required" else "FALSE")
    return Verdicts(
        excluded=excluded, refused=refused, repeated_id=repeated, unlabelled=unlabelled, unused_exclusions=unused
    )


def _evaluate(database: duckdb.DuckDBPyConnection, policy: dict[str, str], *, order: str = "position") -> Bools:
    try:
        # The newline ends a comment in the expression; the cast refuses what is neither true nor false.
        return _column(database, f"coalesce(CAST((\n{policy['sql']}\n) AS BOOLEAN), TRUE)", order=order)
    except duckdb.Error as error:
        problem = str(error).split("\n\nLINE")[0].replace("\n", " ").strip()
        raise SpecError(
            f"policy {policy['name']}: {problem}: expected a yes-or-no expression over "
            f"{', '.join(POLICY_SCHEMA.names)}, got {policy['sql']!r}. "
            "Correct the expression and open the release again."
        ) from error


def _column(database: duckdb.DuckDBPyConnection, expression: str, *, order: str = "position") -> Bools:
    found = database.execute(f"SELECT {expression} AS verdict FROM samples ORDER BY {order}").fetchnumpy()["verdict"]
    return np.asarray(found, dtype=np.bool_)


def _exclusions(database: duckdb.DuckDBPyConnection, patterns: Sequence[str]) -> tuple[Bools, tuple[str, ...]]:
    """Rows whose id equals a pattern or matches it as a glob (``*``, ``?``, ``[...]``), and patterns without any."""
    num_rows = database.execute("SELECT count(*) FROM samples").fetchall()[0][0]
    excluded = np.zeros(num_rows, dtype=np.bool_)
    unused: list[str] = []
    for pattern in sorted(set(patterns)):
        test = "id = $1 OR id GLOB $1" if set(pattern) & set("*?[") else "id = $1"
        found = database.execute(f"SELECT position FROM samples WHERE {test}", [pattern]).fetchnumpy()["position"]
        excluded[found] = True
        if len(found) == 0:
            unused.append(pattern)
    return excluded, tuple(unused)
