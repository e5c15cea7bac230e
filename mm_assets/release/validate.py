"""Checks of a frozen release: read back what was written and derive the promises again from the shards themselves."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter

from mm_assets.checks.rules import Rules
from mm_assets.checks.validations import MAX_FAILING_IDS, Finding
from mm_assets.release.config import PARENT, SPLITS, FreezeConfig
from mm_assets.release.contamination import CONTAMINATION, evaluation_sets, find_contaminated
from mm_assets.release.crossings import find_crossings
from mm_assets.release.dedup import components, link_expressions, shared_keys
from mm_assets.release.frozen import Frozen, ids_of, load_frozen
from mm_assets.release.links import find_links
from mm_assets.release.near_sets import find_near, has_signatures
from mm_assets.release.rows import Rows, load_rows
from mm_assets.release.shards import Shard, merkle_root, own_shards, read_shards
from mm_assets.release.signatures import NEAR, read_signatures
from mm_assets.scratch import scratch_folder
from mm_assets.store.manifest import Input, Manifest
from mm_assets.store.objects import Store


def validate_dataset_release(store: Store, manifest: Manifest, rules: Rules) -> tuple[Finding, ...]:
    """Whether the release keeps its promises; drift is reported and never fails.

    Raises:
        ObjectCorruptError: an output or an input is damaged. ObjectMissingError: one is gone.
    """
    del rules
    config = TypeAdapter(FreezeConfig).validate_python(manifest.params["config"])
    root, shards = read_shards(store, manifest)
    statistics = json.loads(store.get_bytes(manifest.output("stats.json").digest))
    with scratch_folder("check") as folder:
        samples = store.fetch(manifest.output("samples.parquet").digest, folder)
        with load_rows(store, shards, folder) as rows:
            database = rows.database
            frozen = load_frozen(rows, samples)
            return (
                _merkle(manifest, root, shards),
                _rows_exist(rows, frozen, len(shards)),
                _ids_unique(database),
                _no_leakage(rows, frozen, config),
                _no_near_leakage(rows, frozen, config),
                _no_contamination(rows, store, manifest, config, folder),
                _splits_filled(database, config),
                _largest_group(json.loads(store.get_bytes(manifest.output("record.json").digest))),
                _classes_taught(rows, config, max((shard.generation for shard in shards), default=0)),
                _drift(statistics["drift"]),
            )


def _merkle(manifest: Manifest, root: str, shards: Sequence[Shard]) -> Finding:
    expected = merkle_root(shards)
    own = own_shards(manifest.inputs, generation=shards[-1].generation if shards else 0)
    listed = shards[len(shards) - len(own) :]
    absent = [
        f"shard {number} of its own"
        for number, shard in enumerate(own)
        if number >= len(listed) or shard != listed[number]
    ]
    detail = f"Merkle root over {len(shards)} shards: expected {expected}, got {root}"
    if absent:
        detail = f"shards.json does not list the inputs {', '.join(absent)}"
    return Finding(
        rule="merkle_root",
        passed=root == expected and not absent,
        detail=detail,
        num_failing=len(absent),
        failing_ids=tuple(absent[:MAX_FAILING_IDS]),
    )


def _finding(rule: str, failing: Sequence[str], *, good: str, bad: str) -> Finding:
    return Finding(
        rule=rule,
        passed=not failing,
        detail=f"{len(failing)} {bad}: {', '.join(failing[:MAX_FAILING_IDS])}" if failing else good,
        num_failing=len(failing),
        failing_ids=tuple(failing[:MAX_FAILING_IDS]),
    )


def _strings(database: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    return [row[0] for row in database.execute(sql).fetchall()]


def _rows_exist(rows: Rows, frozen: Frozen, num_shards: int) -> Finding:
    found = rows.database.execute(
        """SELECT f.id FROM frozen f LEFT JOIN samples s USING (position) WHERE f.id IS DISTINCT FROM s.id
           UNION SELECT s.id FROM samples s ANTI JOIN frozen USING (position)
           UNION SELECT id FROM frozen GROUP BY position, id HAVING position IS NOT NULL AND count(*) > 1 ORDER BY id"""
    )
    failing = [str(row[0]) for row in found.fetchall()] if not frozen.is_complete else []
    return _finding(
        "rows_exist",
        failing,
        good=f"every row is where the release says, in {num_shards} shards, and none is missing",
        bad="samples are not in the shard and row that the release names",
    )


def _ids_unique(database: duckdb.DuckDBPyConnection) -> Finding:
    failing = _strings(database, "SELECT id FROM frozen WHERE selected GROUP BY id HAVING count(*) > 1 ORDER BY id")
    return _finding("unique_ids", failing, good="no id is selected twice", bad="ids are selected more than once")


def _no_leakage(rows: Rows, frozen: Frozen, config: FreezeConfig) -> Finding:
    linked, keys = shared_keys(rows.database, link_expressions(config))
    used = frozen.split[linked] >= 0
    linked, keys = linked[used], keys[used]
    splits = np.zeros(int(keys.max(initial=-1)) + 1, dtype=np.int64)
    np.bitwise_or.at(splits, keys, np.left_shift(1, frozen.split[linked]))
    torn = (splits & (splits - 1)) != 0
    return _finding(
        "no_leakage",
        ids_of(rows, np.unique(linked[torn[keys]])),
        good="no group, picture, recording or text is in two splits",
        bad="selected samples share a group, picture, recording or text with another split",
    )


def _no_near_leakage(rows: Rows, frozen: Frozen, config: FreezeConfig) -> Finding:
    """Distances of selected samples of different splits, measured without the search that made the groups."""
    if not config.group_near_duplicates:
        return Finding(rule="no_near_leakage", passed=True, detail="the configuration does not group near duplicates")
    crossings = find_crossings(rows, frozen.split, config)
    compared = ", ".join(f"{name} {done} of {total}" for name, (done, total) in crossings.compared.items())
    return _finding(
        "no_near_leakage",
        ids_of(rows, crossings.positions),
        good=f"no compared sample of val and test is nearly equal to one of another split; compared: {compared}",
        bad="selected samples are nearly equal to one of another split; exclude them or add a group to their drop",
    )


def _no_contamination(rows: Rows, store: Store, manifest: Manifest, config: FreezeConfig, folder: Path) -> Finding:
    """No selected sample outside test is in an evaluation set or near to it; sets are named by their releases."""
    sets, database = evaluation_sets(manifest), rows.database
    found = find_contaminated(database, store, sets, config, folder / "evaluated")
    if any(map(has_signatures, sets)):
        signatures = {name: read_signatures(rows, name, config) for name in NEAR}
        found = np.maximum(found, find_near(signatures, store, sets, folder / "evaluated", num_rows=len(found)))
    database.register("held_out", pa.table({"position": np.arange(len(found), dtype=np.int64), "number": found}))
    failing = _strings(
        database,
        """SELECT DISTINCT id FROM frozen JOIN held_out USING (position)
           WHERE number >= 0 AND selected AND split <> 'test' ORDER BY id""",
    )
    left_out = database.execute(
        f"SELECT count(*) FROM frozen WHERE list_contains(string_split(reasons, ','), '{CONTAMINATION}')"
    ).fetchall()[0][0]
    named = ", ".join(map(_compared_with, sets)) or "none"
    return _finding(
        CONTAMINATION,
        failing,
        good=f"nothing outside test is in an evaluation set (held against: {named}); {left_out} samples were left out",
        bad=f"selected samples outside test are in an evaluation set ({named})",
    )


def _compared_with(entry: Input) -> str:
    """The release of an evaluation set. What is near to a parent's test split is in one leakage group with it."""
    name = entry.partition["release"]
    return name if entry.role == PARENT or has_signatures(entry) else f"{name} by its keys alone"


def _splits_filled(database: duckdb.DuckDBPyConnection, config: FreezeConfig) -> Finding:
    counts = dict(database.execute("SELECT split, count(*) FROM frozen WHERE selected GROUP BY split").fetchall())
    wanted = [split for split, fraction in zip(SPLITS, config.fractions, strict=True) if fraction > 0]
    groups = len(_strings(database, """SELECT DISTINCT coalesce("group", id) FROM frozen WHERE selected"""))
    empty = [split for split in wanted if not counts.get(split)]
    shown = ", ".join(f"{split} {counts.get(split, 0)}" for split in SPLITS)
    if empty and groups >= len(wanted):
        detail = f"split {', '.join(empty)} is empty although {groups} groups are selected ({shown})"
        return Finding(rule="splits_filled", passed=False, detail=detail, num_failing=len(empty))
    return Finding(rule="splits_filled", passed=True, detail=f"selected samples per split: {shown}")


def _largest_group(record: Mapping[str, Any]) -> Finding:
    """Reported, and never failing: a chain is large because of what was delivered."""
    groups = record.get("leakage_groups")
    if groups is None:
        detail = "the release was frozen by a version that did not count leakage groups"
    else:
        selected = record["coverage"]["num_selected"]
        detail = f"{groups['largest']} of {selected} selected samples are in the largest leakage group"
        if groups["largest"] > 1 and groups["largest_share"] > groups["limit"]:
            detail = (
                f"WARNING: {detail}, that of {groups['largest_id']}: more than {groups['limit']:.0%}. All of them are "
                "in one split, whatever share it was to have: exclude what connects them if that is not meant"
            )
    return Finding(rule="largest_group", passed=True, detail=detail)


def _classes_taught(rows: Rows, config: FreezeConfig, generation: int) -> Finding:
    """Every class is in train, unless no group of it may go there: it is the last of its split, or inherited."""
    missing = _strings(
        rows.database,
        """SELECT label FROM frozen WHERE selected AND label IS NOT NULL GROUP BY label
           HAVING NOT bool_or(split = 'train') ORDER BY label""",
    )
    fixed = _fixed_classes(rows, config, generation, missing) if missing else []
    good = "every class is in train"
    if fixed:
        shown = ", ".join(fixed[:MAX_FAILING_IDS])
        good = f"WARNING: {len(fixed)} classes are outside train and none of their groups may move: {shown}"
    failing = [label for label in missing if label not in set(fixed)]
    return _finding("classes_in_train", failing, good=good, bad="classes are missing from train")


def _fixed_classes(rows: Rows, config: FreezeConfig, generation: int, missing: list[str]) -> list[str]:
    """Those of some classes none of whose groups may move to train."""
    links = find_links(rows, config)
    leaders = components(rows.num_rows, links.rows, links.keys)
    rows.database.register("led", pa.table({"position": np.arange(rows.num_rows, dtype=np.int64), "leader": leaders}))
    rows.database.register("missing", pa.table({"label": missing}))
    found = rows.database.execute(
        """WITH placed AS (
             SELECT f.split, f.label, leader,
               bool_or(s.generation <> $generation) OVER (PARTITION BY leader) AS is_inherited
             FROM frozen f JOIN samples s USING (position) JOIN led USING (position) WHERE f.selected),
           sizes AS (SELECT split, count(DISTINCT leader) AS num_groups FROM placed GROUP BY split)
           SELECT label FROM placed JOIN sizes USING (split) SEMI JOIN missing USING (label)
           GROUP BY label HAVING NOT bool_or(num_groups > 1 AND NOT is_inherited) ORDER BY label""",
        {"generation": generation},
    )
    return [row[0] for row in found.fetchall()]


def _drift(drift: Mapping[str, Any] | None) -> Finding:
    if drift is None:
        detail = "no parent to drift from"
    elif drift["warnings"]:
        detail = f"WARNING: added samples differ from the parent's in {', '.join(drift['warnings'])}"
    else:
        detail = "added samples are distributed like the parent's"
    return Finding(rule="drift", passed=True, detail=detail)
