"""What a policy would do to a frozen release: counts by reason and slice, from the columns it names and nothing else.

Duplicates, leakage and splits are not decided again, as freezing does: of a sample that the policy lets in, the trial
says whether another rule keeps it out as the release was frozen.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mm_assets.errors import SpecError
from mm_assets.features.schema import EMBEDDING_SIGNALS, SIGNALS
from mm_assets.identity.canonical import Json
from mm_assets.release.curation import check_policy, verdict_sql
from mm_assets.release.expressions import columns_of
from mm_assets.release.policies import PREFIX, Policy
from mm_assets.release.rows import ORIGIN, POLICY_SCHEMA, narrow
from mm_assets.release.shards import Shard, read_shards
from mm_assets.release.statistics import COMBINATION
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store

#: What slices are named after, and the expression that says in which one a sample is.
SLICES = {"language": "language", "source": "source", "label": "label", "modalities": COMBINATION}
#: Samples that are named on each side of the difference.
NUM_EXAMPLES = 10
_NAMED = 200
_FROZEN = ("id", "shard", "row", "selected", "reasons", "split", "label", "language", "group", "source", "drop")
#: A row that the policy in force leaves out, and one that something else does.
_BEFORE = f"list_bool_or(list_transform(string_split(reasons, ','), lambda r: starts_with(r, '{PREFIX}')))"
_OTHERWISE = (
    f"list_bool_or(list_transform(string_split(reasons, ','), lambda r: r <> '' AND NOT starts_with(r, '{PREFIX}')))"
)


def try_policy(store: Store, manifest: Manifest, policy: Policy, workdir: Path) -> dict[str, Json]:
    """Counts of a policy on a frozen release.

    Args:
        store: Where the release is.
        manifest: Of its ``dataset_release``.
        policy: The policy to try.
        workdir: An existing folder.

    Returns:
        ``rows``, ``in`` and ``out`` of the policy alone; ``reasons`` and ``slices`` with their counts; ``difference``
        from the policy in force, with some ids; ``selected`` before, and after as far as other rules let in.

    Raises:
        SpecError: the policy is unusable.
    """
    check_policy(policy)
    with duckdb.connect() as database:
        database.execute("SET enable_external_access = false")
        database.execute("SET TimeZone = 'UTC'")
        database.register("joined", _columns(store, manifest, policy, workdir))
        _judge(database, policy)
        return {"policy": policy.name, "in_force": str(manifest.params["policy"]["name"]), **_counts(database, policy)}


def _columns(store: Store, manifest: Manifest, policy: Policy, workdir: Path) -> pa.Table:
    """Every row of the release with the columns that its slices and the policy's expressions name."""
    frozen_path = store.fetch(manifest.output("samples.parquet").digest, workdir)
    present = set(pq.read_schema(frozen_path).names)
    slices = [name for name in present if name.startswith("has_")]
    if not pa.types.is_integer(pq.read_schema(frozen_path).field("shard").type):
        raise SpecError(
            f"release {manifest.partition.release}: was frozen by the first version, which named shards otherwise. "
            f"Freeze it again with `mm run --release {manifest.partition.release}`."
        )
    frozen = pq.read_table(frozen_path, columns=[name for name in (*_FROZEN, *slices) if name in present])
    wanted = set[str]().union(*(columns_of(sql) for sql in policy.expressions.values()))
    missing = [
        field for field in POLICY_SCHEMA if field.name.lower() in wanted and field.name not in frozen.schema.names
    ]
    if not missing:
        return frozen
    _, shards = read_shards(store, manifest)
    parts = [_shard_columns(store, shard, missing, workdir) for shard in shards]
    # The parts are in the order of shards and rows. Arrow joins no lists.
    found = pa.concat_tables(parts)
    starts = np.cumsum([0, *(part.num_rows for part in parts)])
    order = pa.array(starts[frozen["shard"].to_numpy()] + frozen["row"].to_numpy())
    for name in found.column_names:
        frozen = frozen.append_column(name, found[name].take(order))
    return frozen


def _shard_columns(store: Store, shard: Shard, missing: Sequence[pa.Field], workdir: Path) -> pa.Table:
    """Columns of one shard in the order of its rows, which is that of the table of signals."""
    ids = pa.field("id", pa.string())
    own = [field for field in missing if field.name in SIGNALS.names]
    table = narrow(store, shard.signals, pa.schema([ids, *own]), workdir)
    for digest, schema in ((shard.samples, ORIGIN), (shard.embedding_signals, EMBEDDING_SIGNALS)):
        fields = [field for field in missing if field.name in schema.names and field not in own]
        if fields:
            other = narrow(store, digest, pa.schema([ids, *fields]), workdir)
            order = pc.index_in(table["id"], other["id"].combine_chunks())  # pyright: ignore[reportAttributeAccessIssue]
            for field in fields:
                table = table.append_column(field, other[field.name].take(order))
    return table.drop_columns(["id"])


def _judge(database: duckdb.DuckDBPyConnection, policy: Policy) -> None:
    """The table ``judged``: a column per reason, ``refused``, and what the release says about the row now."""
    verdicts = {f"r{number}": verdict_sql(sql) for number, sql in enumerate(policy.expressions.values())}
    columns = "".join(f", {sql} AS {name}" for name, sql in verdicts.items())
    try:
        database.execute(
            f"""CREATE TABLE judged AS SELECT *, {" OR ".join(verdicts) or "FALSE"} AS refused FROM (
                  SELECT id, selected, {", ".join(f"{sql} AS slice_{name}" for name, sql in SLICES.items())},
                    {_BEFORE} AS refused_before, {_OTHERWISE} AS refused_otherwise{columns} FROM joined)"""
        )
    except duckdb.Error as error:
        problem = str(error).split("\n")[0].strip()
        raise SpecError(f"policy {policy.name}: {problem}. Correct the expression.") from error


def _counts(database: duckdb.DuckDBPyConnection, policy: Policy) -> dict[str, Json]:
    reasons = list(policy.expressions)
    by_reason = "".join(f", count(*) FILTER (r{number})" for number in range(len(reasons)))
    rows = _one(
        database,
        f"""SELECT count(*), count(*) FILTER (refused), count(*) FILTER (selected),
            count(*) FILTER (NOT refused AND NOT refused_otherwise){by_reason} FROM judged""",
    )
    total, out, before, after = rows[:4]
    return {
        "rows": total,
        "in": total - out,
        "out": out,
        "reasons": dict(zip(reasons, rows[4:], strict=True)),
        "slices": {name: _slice(database, name) for name in SLICES},
        "selected": {"before": before, "after": after},
        "difference": {
            "let_in": _side(database, "refused_before AND NOT refused"),
            "left_out": _side(database, "refused AND NOT refused_before"),
        },
    }


def _slice(database: duckdb.DuckDBPyConnection, name: str) -> dict[str, Json]:
    """In and out per value, the largest first."""
    rows = database.execute(
        f"""SELECT coalesce(slice_{name}, '') AS value, count(*) FILTER (NOT refused), count(*) FILTER (refused),
            count(*) FILTER (refused_before AND NOT refused), count(*) FILTER (refused AND NOT refused_before)
            FROM judged GROUP BY value ORDER BY count(*) DESC, value LIMIT {_NAMED}"""
    ).fetchall()
    return {
        value: {"in": kept, "out": out, "let_in": let_in, "left_out": new} for value, kept, out, let_in, new in rows
    }


def _side(database: duckdb.DuckDBPyConnection, where: str) -> dict[str, Json]:
    count = _one(database, f"SELECT count(*) FROM judged WHERE {where}")[0]
    ids = database.execute(f"SELECT id FROM judged WHERE {where} ORDER BY id LIMIT {NUM_EXAMPLES}").fetchall()
    return {"num_samples": count, "examples": [row[0] for row in ids]}


def _one(database: duckdb.DuckDBPyConnection, sql: str) -> Sequence[Any]:
    return database.execute(sql).fetchall()[0]


def largest_slices(slices: Mapping[str, Any], limit: int) -> list[tuple[str, str, int, int, int, int]]:
    """Rows of a table of slices: the values with most samples left out, ``limit`` of each."""
    found: list[tuple[str, str, int, int, int, int]] = []
    for name, values in slices.items():
        ranked = sorted(values.items(), key=lambda item: (-item[1]["out"], -item[1]["in"], item[0]))[:limit]
        found += [
            (name, value or "none", count["in"], count["out"], count["let_in"], count["left_out"])
            for value, count in ranked
        ]
    return found
