"""Freezing a release: every decision about every sample, from narrow columns alone.

Owns the order of the steps: rows of all shards, verdicts, originals of duplicates, leakage groups, splits, tables.
Payloads are never read, and the parent's shards are included by reference.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from mm_assets.identity.canonical import Json, canonical_json, digest_file
from mm_assets.release.card import dataset_card
from mm_assets.release.config import SPLITS, FreezeConfig
from mm_assets.release.croissant import croissant_document
from mm_assets.release.curation import Verdicts, judge
from mm_assets.release.dedup import CONTENT, Bools, Ints, link_expressions, originals, shared_keys
from mm_assets.release.drift import measure_drift
from mm_assets.release.record import release_record
from mm_assets.release.rows import load_rows
from mm_assets.release.shards import Shard, read_shard, read_shards, write_shards
from mm_assets.release.splits import assign, separate
from mm_assets.release.statistics import release_statistics
from mm_assets.settings import Settings
from mm_assets.store.commit import OutputFile, StageResult
from mm_assets.store.manifest import Manifest, Recipe, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.tables import JSON_TYPE, MARKDOWN_TYPE, PARQUET_TYPE, read_parquet, write_parquet

LEAKAGE = "leakage"

SAMPLES = pa.schema(
    [
        ("id", pa.string()), ("release", pa.string()), ("shard", pa.string()), ("row", pa.int32()),
        ("split", pa.string()), ("selected", pa.bool_()), ("reasons", pa.string()), ("duplicate_of", pa.string()),
        ("label", pa.string()), ("language", pa.string()), ("group", pa.string()), ("source", pa.string()),
        ("drop", pa.string()), ("has_text", pa.bool_()), ("has_image", pa.bool_()), ("has_audio", pa.bool_()),
        ("text_tokens", pa.int32()), ("audio_frames", pa.int32()),
    ]
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class _Decisions:
    """What was decided about every row, in the order of ``position``."""

    split: Ints
    original: Ints
    leaked: Bools


def compute_dataset_release(store: Store, recipe: Recipe, workdir: Path, settings: Settings) -> StageResult:
    """Freezes a release from the manifests its recipe names.

    Raises:
        SpecError: the curation policy is unusable.
        StageError: the tables of a shard do not belong together.
    """
    del settings
    config = TypeAdapter(FreezeConfig).validate_python(recipe.params["config"])
    parent = _parent(store, recipe)
    shards = release_shards(store, recipe, parent)
    with load_rows(store, shards, workdir) as database:
        params: Mapping[str, Any] = recipe.params
        verdicts = judge(database, policy=params["policy"], exclusions=params["exclusions"], config=config)
        decisions = _decide(store, database, recipe, config, parent=parent, verdicts=verdicts, workdir=workdir)
        samples = _samples(database, verdicts, decisions, policy=params["policy"]["name"])
        positions = pa.array(np.arange(samples.num_rows, dtype=np.int64))
        database.register("frozen", samples.append_column("position", positions))
        statistics = release_statistics(database, num_dead_letters=_num_dead_letters(store, recipe, parent))
        drift = measure_drift(
            database,
            release=recipe.partition.release,
            parent=parent.partition.release if parent else None,
            limit=config.drift_limit,
        )
        path = write_parquet(samples, workdir / "samples.parquet")
        record = release_record(
            store,
            database,
            recipe=recipe,
            parent=parent,
            shards=shards,
            statistics=statistics,
            samples_digest=digest_file(path),
            unused_exclusions=verdicts.unused_exclusions,
        )
    files = _write_documents(workdir, shards, record, {**statistics, "drift": drift})
    samples_file = OutputFile(name="samples.parquet", path=path, media_type=PARQUET_TYPE, num_rows=samples.num_rows)
    return StageResult(files=(samples_file, *files), stats=_stats(statistics, drift))


def release_shards(store: Store, recipe: Recipe, parent: Manifest | None) -> list[Shard]:
    """The parent's shards and the recipe's own, in the order of (release, shard)."""
    own: dict[tuple[str, str], dict[str, str]] = {}
    for entry in recipe.inputs:
        if "shard" in entry.partition:
            own.setdefault((entry.partition["release"], entry.partition["shard"]), {})[entry.asset] = entry.digest
    shards = read_shards(store, parent)[1] if parent else []
    shards += [read_shard(store, release, shard, manifests) for (release, shard), manifests in own.items()]
    return sorted(shards, key=lambda shard: (shard.release, shard.shard))


def _parent(store: Store, recipe: Recipe) -> Manifest | None:
    digests = [entry.digest for entry in recipe.inputs if entry.asset == "dataset_release"]
    return read_manifest(store, digests[0]) if digests else None


def _decide(
    store: Store,
    database: duckdb.DuckDBPyConnection,
    recipe: Recipe,
    config: FreezeConfig,
    *,
    parent: Manifest | None,
    verdicts: Verdicts,
    workdir: Path,
) -> _Decisions:
    inherited, left_out = _inherited(store, database, parent, workdir)
    original = originals(database, verdicts.eligible, config)
    rows, keys = shared_keys(database, link_expressions(config), config)
    groups, leaked = separate(len(inherited), rows, keys, inherited=inherited, left_out=left_out)
    is_original = original == np.arange(len(original))
    split = assign(
        groups,
        _group_keys(database, groups),
        inherited=inherited,
        selected=verdicts.eligible & is_original & ~leaked,
        labels=_labels(database),
        seed=int(str(recipe.params["seed"])),
        config=config,
    )
    return _Decisions(split=split, original=original, leaked=leaked)


def _inherited(
    store: Store, database: duckdb.DuckDBPyConnection, parent: Manifest | None, workdir: Path
) -> tuple[Ints, Bools]:
    """For every row the split its id has in the parent (-1: not there), and whether the parent left it out."""
    columns = ["id", "split", "selected", "reasons"]
    if parent is None:
        before = SAMPLES.empty_table().select(columns)
    else:
        before = read_parquet(store.fetch(parent.output("samples.parquet").digest, workdir / "fetched"), columns)
    database.register("before", before)
    database.register("split_numbers", pa.table({"split": list(SPLITS), "number": range(len(SPLITS))}))
    found = database.execute(
        f"""WITH known AS (SELECT id, coalesce(min(number) FILTER (selected), min(number)) AS number,
              bool_and(list_contains(string_split(reasons, ','), '{LEAKAGE}')) AS leaked
              FROM before JOIN split_numbers USING (split) GROUP BY id)
            SELECT coalesce(number, -1) AS number, coalesce(leaked, FALSE) AS leaked
            FROM samples LEFT JOIN known USING (id) ORDER BY position"""
    ).fetchnumpy()
    return np.asarray(found["number"], dtype=np.int64), np.asarray(found["leaked"], dtype=np.bool_)


def _group_keys(database: duckdb.DuckDBPyConnection, groups: Ints) -> list[str]:
    """Smallest key of each leakage group; declared groups come before ids, so a new smaller id changes nothing."""
    database.register("grouped", pa.table({"position": np.arange(len(groups), dtype=np.int64), "leader": groups}))
    rows = database.execute(
        """SELECT min(coalesce('group/' || source || '/' || "group", 'id/' || id)) FROM samples JOIN grouped
           USING (position) GROUP BY leader ORDER BY leader"""
    )
    return [row[0] for row in rows.fetchall()]


def _labels(database: duckdb.DuckDBPyConnection) -> Ints:
    rows = database.execute(
        """SELECT CASE WHEN label IS NULL THEN -1 ELSE dense_rank() OVER (ORDER BY label) END AS number
           FROM samples ORDER BY position"""
    )
    return np.asarray(rows.fetchnumpy()["number"], dtype=np.int64)


def _samples(
    database: duckdb.DuckDBPyConnection, verdicts: Verdicts, decisions: _Decisions, *, policy: str
) -> pa.Table:
    """The rows of ``samples.parquet``."""
    stored = [name for name in SAMPLES.names if name not in ("split", "selected", "reasons", "duplicate_of")]
    names = ", ".join(f'"{name}"' for name in stored)
    rows = database.sql(f"SELECT {names}, {CONTENT} AS content FROM samples ORDER BY position").to_arrow_table()
    is_copy = decisions.original != np.arange(rows.num_rows)
    original = rows.take(pa.array(decisions.original))
    is_exact = pc.equal(rows["content"], original["content"]).fill_null(False).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
    reasons = _reasons(
        {
            "excluded": verdicts.excluded,
            f"policy:{policy}": verdicts.refused,
            "duplicate_id": verdicts.repeated_id,
            "unlabelled": verdicts.unlabelled,
            "duplicate": is_copy & is_exact,
            "near_duplicate": is_copy & ~is_exact,
            LEAKAGE: decisions.leaked,
        }
    )
    values = {
        "split": pa.array(SPLITS).take(pa.array(decisions.split)),
        "selected": pc.equal(reasons, ""),  # pyright: ignore[reportAttributeAccessIssue]
        "reasons": reasons,
        "duplicate_of": pc.if_else(pa.array(is_copy), original["id"], pa.scalar(None, pa.string())),  # pyright: ignore[reportAttributeAccessIssue]
    }
    columns = [values[name] if name in values else rows[name] for name in SAMPLES.names]
    return pa.table(columns, schema=SAMPLES)


def _reasons(flags: Mapping[str, Bools]) -> pa.Array:
    """For every row the names of its flags, comma-joined in their order."""
    names = list(flags)
    numbers = sum(flag.astype(np.int64) << bit for bit, flag in enumerate(flags.values()))
    joined = [
        ",".join(name for bit, name in enumerate(names) if number >> bit & 1) for number in range(1 << len(names))
    ]
    return pa.array(joined).take(pa.array(numbers))


def _num_dead_letters(store: Store, recipe: Recipe, parent: Manifest | None) -> int:
    total = int(parent.stats["dead_letters"]) if parent else 0
    for entry in recipe.inputs:
        if entry.asset in ("snapshot", "features"):
            total += int(read_manifest(store, entry.digest).stats["dead_letters"])
    return total


def _write_documents(
    workdir: Path, shards: list[Shard], record: Mapping[str, Any], statistics: Mapping[str, Json]
) -> list[OutputFile]:
    croissant = croissant_document(record, SAMPLES, samples_digest=record["checksums"]["samples"])
    documents = {
        "record.json": canonical_json(record),
        "stats.json": canonical_json(statistics),
        "croissant.json": (json.dumps(croissant, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode(),
        "README.md": dataset_card(record, statistics).encode(),
    }
    for name, data in documents.items():
        (workdir / name).write_bytes(data)
    write_shards(shards, workdir / "shards.json")
    return [
        OutputFile(name=name, path=workdir / name, media_type=MARKDOWN_TYPE if name.endswith(".md") else JSON_TYPE)
        for name in (*documents, "shards.json")
    ]


def _stats(statistics: Mapping[str, Any], drift: Mapping[str, Any] | None) -> dict[str, Json]:
    splits = statistics["splits"]
    return {
        "rows_in": statistics["num_samples"],
        "rows_out": statistics["num_selected"],
        "dead_letters": statistics["num_dead_letters"],
        "splits": {split: splits[split]["num_samples"] for split in SPLITS},
        "num_classes": sum(1 for label in splits["train"]["labels"] if label),
        "drift_warnings": list(drift["warnings"]) if drift else [],
    }
