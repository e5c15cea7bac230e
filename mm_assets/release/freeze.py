"""Freezing a release: every decision about every sample, from narrow columns alone.

Owns the order of the steps: rows of all shards, verdicts, originals of duplicates, leakage groups, splits, tables.
Payloads are never read, and the parent's shards are included by reference.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from mm_assets.features.schema import PARTS_FIELD
from mm_assets.identity.canonical import Json, canonical_json, digest_file
from mm_assets.modalities.parts import PARTS
from mm_assets.modalities.table import MODALITIES, NAMES
from mm_assets.release.card import dataset_card
from mm_assets.release.config import PARENT, SPLITS, FreezeConfig
from mm_assets.release.contamination import (
    CONTAMINATION,
    KEYS_FILE,
    describe_sets,
    evaluation_sets,
    find_contaminated,
    write_evaluation_keys,
)
from mm_assets.release.croissant import croissant_document
from mm_assets.release.curation import Verdicts, judge
from mm_assets.release.dedup import CONTENT, Bools, Ints
from mm_assets.release.drift import measure_drift
from mm_assets.release.labels import LABELS_FILE, register_labels, summarize_labels, write_labels
from mm_assets.release.links import find_links
from mm_assets.release.originals import originals
from mm_assets.release.policies import policy_of
from mm_assets.release.record import release_record
from mm_assets.release.rows import load_rows
from mm_assets.release.shards import Shard, own_shards, parse_shards, write_shards
from mm_assets.release.splits import assign, separate
from mm_assets.release.statistics import release_statistics
from mm_assets.snapshot.schema import UNKNOWN_KEY
from mm_assets.store.commit import OutputFile, StageResult
from mm_assets.store.job import Job
from mm_assets.store.tables import JSON_TYPE, MARKDOWN_TYPE, PARQUET_TYPE, read_parquet, write_parquet

LEAKAGE = "leakage"
_PARTS = f"[{{'modality': part.modality, 'length': part.length}} FOR part IN {PARTS}] AS {PARTS}"

SAMPLES = pa.schema(
    [
        ("id", pa.string()), ("shard", pa.int32()), ("row", pa.int32()),
        ("split", pa.string()), ("selected", pa.bool_()), ("reasons", pa.string()), ("duplicate_of", pa.string()),
        ("label", pa.string()), ("language", pa.string()), ("group", pa.string()), ("source", pa.string()),
        ("drop", pa.string()), *((f"has_{name}", pa.bool_()) for name in NAMES),
        *((row.length_column, pa.int32()) for row in MODALITIES.values() if row.length_column is not None),
    ]
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class _Decisions:
    """What was decided about every row, in the order of ``position``."""

    split: Ints
    original: Ints
    leaked: Bools
    contaminated: Ints

    @property
    def is_contaminated(self) -> Bools:
        """Rows that an evaluation set keeps out of training: ``contaminated`` says which, or -1."""
        return (self.contaminated >= 0) & (self.split != SPLITS.index("test")) & ~self.leaked


def compute_dataset_release(job: Job) -> StageResult:
    """Freezes a release from the shards and the parent that its inputs name.

    Raises:
        SpecError: the curation policy is unusable.
        StageError: the tables of a shard do not belong together.
    """
    config = TypeAdapter(FreezeConfig).validate_python(job.params["config"])
    workdir = job.workdir
    parent = _parent(job)
    shards = [*parent.shards, *own_shards(job.inputs, generation=parent.generation)]
    with load_rows(job.store, shards, workdir) as database:
        params: Mapping[str, Any] = job.params
        policy = policy_of(params["policy"])
        verdicts = judge(database, policy=policy, exclusions=params["exclusions"], config=config)
        decisions = _decide(job, database, config, parent=parent, verdicts=verdicts)
        samples = _samples(database, verdicts, decisions)
        positions = pa.array(np.arange(samples.num_rows, dtype=np.int64))
        database.register("frozen", samples.append_column("position", positions))
        num_dead_letters, unknown = _dead_letters(job)
        statistics = release_statistics(database, num_dead_letters=num_dead_letters + parent.num_dead_letters)
        drift = measure_drift(database, generation=parent.generation, limit=config.drift_limit)
        path = write_parquet(samples, workdir / "samples.parquet")
        record = release_record(
            job,
            database,
            parent=parent.record,
            shards=shards,
            statistics=statistics,
            samples_digest=digest_file(path),
            unused_exclusions=verdicts.unused_exclusions,
            unknown_members=unknown,
        )
        record["contamination"] = describe_sets(job, decisions.contaminated, decisions.is_contaminated)
        register_labels(database, record)
        record["label_provenance"] = summarize_labels(database)
        num_labels = write_labels(database, workdir / LABELS_FILE)
        num_keys = write_evaluation_keys(database, job, config, workdir / KEYS_FILE)
    files = _write_documents(workdir, shards, record, {**statistics, "drift": drift})
    samples_file = OutputFile(name="samples.parquet", path=path, media_type=PARQUET_TYPE, num_rows=samples.num_rows)
    tables = [
        OutputFile(name=name, path=workdir / name, media_type=PARQUET_TYPE, num_rows=num_rows)
        for name, num_rows in ((LABELS_FILE, num_labels), (KEYS_FILE, num_keys))
    ]
    return StageResult(files=(samples_file, *tables, *files), stats=_stats(statistics, drift))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parent:
    """What a release takes over from its parent; of a release without one, nothing.

    ``generation`` is the number of the release's own shards' generation.
    """

    shards: list[Shard]
    generation: int
    num_dead_letters: int
    samples: pa.Table
    record: Mapping[str, Any] | None


def _parent(job: Job) -> _Parent:
    columns = ["id", "split", "selected", "reasons"]
    if not job.inputs_of("dataset_release", PARENT):
        empty = SAMPLES.empty_table().select(columns)
        return _Parent(shards=[], generation=0, num_dead_letters=0, samples=empty, record=None)
    _, shards = parse_shards(job.read("dataset_release", "shards.json", role=PARENT), "parent")
    statistics = json.loads(job.read("dataset_release", "stats.json", role=PARENT))
    return _Parent(
        shards=shards,
        generation=max((shard.generation for shard in shards), default=0) + 1,
        num_dead_letters=int(statistics["num_dead_letters"]),
        samples=read_parquet(job.fetch("dataset_release", "samples.parquet", role=PARENT), columns),
        record=json.loads(job.read("dataset_release", "record.json", role=PARENT)),
    )


def _decide(
    job: Job, database: duckdb.DuckDBPyConnection, config: FreezeConfig, *, parent: _Parent, verdicts: Verdicts
) -> _Decisions:
    inherited, left_out, selected_before = _inherited(database, parent.samples)
    links = find_links(database, config, inherited=inherited)
    original = originals(
        database,
        verdicts.eligible,
        config,
        signatures=links.signatures,
        groups=links.groups,
        selected_before=selected_before,
    )
    contaminated = find_contaminated(database, job.store, evaluation_sets(job), config, job.workdir / "evaluated")
    groups, leaked = separate(len(inherited), links.rows, links.keys, inherited=inherited, left_out=left_out)
    is_original = original == np.arange(len(original))
    split = assign(
        groups,
        _group_keys(database, groups),
        inherited=inherited,
        selected=verdicts.eligible & is_original & ~leaked & (contaminated < 0),
        labels=_labels(database),
        seed=int(str(job.params["seed"])),
        config=config,
    )
    return _Decisions(split=split, original=original, leaked=leaked, contaminated=contaminated)


def _inherited(database: duckdb.DuckDBPyConnection, before: pa.Table) -> tuple[Ints, Bools, Bools]:
    """For every row: split of its id in the parent (-1: not there), whether that left it out, whether selected it."""
    database.register("before", before)
    database.register("split_numbers", pa.table({"split": list(SPLITS), "number": range(len(SPLITS))}))
    found = database.execute(
        f"""WITH known AS (SELECT id, coalesce(min(number) FILTER (selected), min(number)) AS number,
              bool_and(list_contains(string_split(reasons, ','), '{LEAKAGE}')) AS leaked,
              bool_or(selected) AS selected
              FROM before JOIN split_numbers USING (split) GROUP BY id)
            SELECT coalesce(number, -1) AS number, coalesce(leaked, FALSE) AS leaked,
              coalesce(selected, FALSE) AS selected
            FROM samples LEFT JOIN known USING (id) ORDER BY position"""
    ).fetchnumpy()
    leaked, selected = (np.asarray(found[name], dtype=np.bool_) for name in ("leaked", "selected"))
    return np.asarray(found["number"], dtype=np.int64), leaked, selected


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


def _samples(database: duckdb.DuckDBPyConnection, verdicts: Verdicts, decisions: _Decisions) -> pa.Table:
    """The rows of ``samples.parquet``."""
    stored = [name for name in SAMPLES.names if name not in ("split", "selected", "reasons", "duplicate_of")]
    names = ", ".join(f'"{name}"' for name in stored)
    rows = database.sql(
        f"SELECT {names}, {CONTENT} AS content, {_PARTS} FROM samples ORDER BY position"
    ).to_arrow_table()
    is_copy = decisions.original != np.arange(rows.num_rows)
    original = rows.take(pa.array(decisions.original))
    is_exact = pc.equal(rows["content"], original["content"]).fill_null(False).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
    reasons = _reasons(
        {
            "excluded": verdicts.excluded,
            **verdicts.refused,
            "duplicate_id": verdicts.repeated_id,
            "unlabelled": verdicts.unlabelled,
            "duplicate": is_copy & is_exact,
            "near_duplicate": is_copy & ~is_exact,
            LEAKAGE: decisions.leaked,
            CONTAMINATION: decisions.is_contaminated,
        }
    )
    values = {
        "split": pa.array(SPLITS).take(pa.array(decisions.split)),
        "selected": pc.equal(reasons, ""),  # pyright: ignore[reportAttributeAccessIssue]
        "reasons": reasons,
        "duplicate_of": pc.if_else(pa.array(is_copy), original["id"], pa.scalar(None, pa.string())),  # pyright: ignore[reportAttributeAccessIssue]
    }
    columns = [values[name] if name in values else rows[name] for name in SAMPLES.names]
    table = pa.table(columns, schema=SAMPLES)
    if rows[PARTS].null_count == rows.num_rows:
        return table
    return table.append_column(PARTS_FIELD, rows[PARTS].cast(PARTS_FIELD.type))


def _reasons(flags: Mapping[str, Bools]) -> pa.Array:
    """For every row the names of its flags, comma-joined in their order."""
    names = list(flags)
    # Few of the possible combinations occur; each is written once.
    numbers = sum(flag.astype(np.int64) << bit for bit, flag in enumerate(flags.values()))
    present, index = np.unique(numbers, return_inverse=True)
    joined = [",".join(name for bit, name in enumerate(names) if number >> bit & 1) for number in present.tolist()]
    return pa.array(joined, pa.string()).take(pa.array(index))


def _dead_letters(job: Job) -> tuple[int, Counter[str]]:
    """Dead letters of the release's own shards, and their members of unknown extension, by extension."""
    total, unknown = 0, Counter[str]()
    for entry in job.inputs:
        for item in entry.outputs:
            if item.name == "dead_letters.parquet":
                letters = pq.read_metadata(job.store.fetch(item.digest, job.workdir / "letters"))
                total += letters.num_rows
                unknown.update(json.loads((letters.metadata or {}).get(UNKNOWN_KEY, b"{}")))
    return total, unknown


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
