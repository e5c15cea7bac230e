"""Freezing a release: every decision about every sample, from narrow columns alone.

Owns the order of the steps: rows of all shards, verdicts, originals of duplicates, leakage groups, splits, tables.
Payloads are never read, and the parent's shards are included by reference.
"""

import json
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from mm_assets.identity.canonical import Json, canonical_json, digest_file
from mm_assets.release.card import dataset_card
from mm_assets.release.config import PARENT, SPLITS, FreezeConfig
from mm_assets.release.contamination import (
    KEYS_FILE,
    describe_sets,
    evaluation_sets,
    find_contaminated,
    write_evaluation_keys,
)
from mm_assets.release.croissant import croissant_document
from mm_assets.release.curation import Verdicts, judge
from mm_assets.release.decisions import LEAKAGE, SAMPLES, Decisions, decided, write_samples
from mm_assets.release.dedup import Bools, Ints
from mm_assets.release.drift import measure_drift
from mm_assets.release.groups import describe_groups
from mm_assets.release.kept import GROUPS_FILE, Kept, near_files, open_kept, rows_file, write_groups
from mm_assets.release.labels import LABELS_FILE, register_labels, summarize_labels, write_labels
from mm_assets.release.links import Links, find_links
from mm_assets.release.near_sets import SIGNATURES_FILE, find_near, write_signatures
from mm_assets.release.originals import originals
from mm_assets.release.policies import policy_of
from mm_assets.release.record import release_record
from mm_assets.release.rows import Rows, load_rows, write_kept_rows
from mm_assets.release.shards import Shard, own_shards, parse_shards, write_shards
from mm_assets.release.splits import assign, draws, separate
from mm_assets.release.statistics import release_statistics
from mm_assets.snapshot.schema import UNKNOWN_KEY
from mm_assets.store.commit import OutputFile, StageResult
from mm_assets.store.job import Job
from mm_assets.store.tables import ARRAY_TYPE, JSON_TYPE, MARKDOWN_TYPE, PARQUET_TYPE, read_parquet


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
    kept = open_kept(job)
    with load_rows(job.store, shards, workdir, kept.rows) as rows:
        database = rows.database
        params: Mapping[str, Any] = job.params
        policy = policy_of(params["policy"])
        verdicts = judge(database, policy=policy, exclusions=params["exclusions"], config=config)
        decisions, links = _decide(job, rows, config, kept=kept, parent=parent, verdicts=verdicts)
        path = write_samples(rows, decided(database, verdicts, decisions), workdir / "samples.parquet")
        num_dead_letters, unknown = _dead_letters(job)
        statistics = release_statistics(database, num_dead_letters=num_dead_letters + parent.num_dead_letters)
        drift = measure_drift(database, generation=parent.generation, limit=config.drift_limit)
        record = release_record(
            job,
            database,
            parent=parent.record,
            shards=shards,
            stated=_distinct_statements(rows),
            statistics=statistics,
            samples_digest=digest_file(path),
            unused_exclusions=verdicts.unused_exclusions,
            unknown_members=unknown,
        )
        record["contamination"] = describe_sets(job, decisions.contaminated, decisions.is_contaminated)
        record["leakage_groups"] = describe_groups(database, decisions.groups)
        register_labels(database, record)
        record["label_provenance"] = summarize_labels(database)
        num_labels = write_labels(database, workdir / LABELS_FILE)
        num_keys = write_evaluation_keys(database, job, config, workdir / KEYS_FILE)
        num_signatures = write_signatures(links.signatures, _is_tested(rows), workdir / SIGNATURES_FILE)
        kept_files = _write_kept(rows, links, workdir)
    files = _write_documents(workdir, shards, record, {**statistics, "drift": drift}, pq.read_schema(path))
    samples_file = OutputFile(name="samples.parquet", path=path, media_type=PARQUET_TYPE, num_rows=rows.num_rows)
    tables = [
        OutputFile(name=name, path=workdir / name, media_type=PARQUET_TYPE, num_rows=num_rows)
        for name, num_rows in ((LABELS_FILE, num_labels), (KEYS_FILE, num_keys), (SIGNATURES_FILE, num_signatures))
    ]
    return StageResult(files=(samples_file, *tables, *kept_files, *files), stats=_stats(statistics, drift))


#: Small reads at a time; the server's latency sets their pace.
READERS = 8
#: Rows of a bucket, about.
BUCKET_ROWS = 1 << 22


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
    job: Job, rows: Rows, config: FreezeConfig, *, kept: Kept, parent: _Parent, verdicts: Verdicts
) -> tuple[Decisions, Links]:
    """What is decided about every row, and the links that it was decided by."""
    database = rows.database
    inherited, left_out, selected_before = _inherited(database, parent.samples)
    links = find_links(rows, config, kept=kept, inherited=inherited, buckets=_buckets(job, rows.num_rows))
    original = originals(
        database,
        verdicts.eligible,
        config,
        signatures=links.signatures,
        groups=links.groups,
        selected_before=selected_before,
    )
    sets, evaluated = evaluation_sets(job), job.workdir / "evaluated"
    contaminated = find_contaminated(database, job.store, sets, config, evaluated)
    near = find_near(links.signatures, job.store, sets, evaluated, num_rows=len(inherited))
    contaminated = np.where(contaminated >= 0, contaminated, near)
    groups, leaked = separate(len(inherited), links.rows, links.keys, inherited=inherited, left_out=left_out)
    is_original = original == np.arange(len(original))
    split = assign(
        groups,
        _draws(database, groups, int(str(job.params["seed"]))),
        inherited=inherited,
        selected=verdicts.eligible & is_original & ~leaked & (contaminated < 0),
        labels=_labels(database),
        config=config,
    )
    decisions = Decisions(split=split, groups=groups, original=original, leaked=leaked, contaminated=contaminated)
    return decisions, links


def _distinct_statements(rows: Rows) -> list[Mapping[str, str]]:
    """What the tables of signals of all generations state, without repetition."""
    every = {tuple(sorted(entry.items())): entry for entries in rows.stated for entry in entries}
    return [every[key] for key in sorted(every)]


def _write_kept(rows: Rows, links: Links, workdir: Path) -> list[OutputFile]:
    """What children of this release need of the generations that were read of their shards."""
    files: list[OutputFile] = []
    for number in range(rows.num_kept, len(rows.generations) - 1):
        path = workdir / rows_file(number)
        num_rows = write_kept_rows(rows, number, path)
        files.append(OutputFile(name=path.name, path=path, media_type=PARQUET_TYPE, num_rows=num_rows))
    written = [(name, *entry) for name, found in links.found.items() for entry in found.written]
    files += [
        OutputFile(name=name, path=path, media_type=ARRAY_TYPE, num_rows=None)
        for name, path in near_files(written).items()
    ]
    leaders = {name: found.leader for name, found in links.found.items()}
    depths = {name: found.depth for name, found in links.found.items() if found.depth is not None}
    num_groups = write_groups(leaders, depths, workdir / GROUPS_FILE)
    path = workdir / GROUPS_FILE
    return [*files, OutputFile(name=GROUPS_FILE, path=path, media_type=PARQUET_TYPE, num_rows=num_groups)]


def _is_tested(rows: Rows) -> Bools:
    """By position, whether a row is selected for test."""
    found = rows.database.execute("SELECT position FROM judged WHERE split = 'test' AND selected").fetchnumpy()
    is_tested = np.zeros(rows.num_rows, dtype=np.bool_)
    is_tested[found["position"]] = True
    return is_tested


def _buckets(job: Job, num_rows: int) -> int:
    """Parts into which the search for equal and nearly equal samples is divided; they decide memory and no byte."""
    needed = max(0, num_rows - 1) // BUCKET_ROWS
    return int(str(job.placement.get("release_buckets", 1 << needed.bit_length())))


def _inherited(database: duckdb.DuckDBPyConnection, before: pa.Table) -> tuple[Ints, Bools, Bools]:
    """For every row: split of its id in the parent (-1: not there), whether that left it out, whether selected it."""
    (num_rows,) = database.execute("SELECT count(*) FROM samples").fetchall()[0]
    number, leaked, selected = np.full(num_rows, -1, np.int64), *(np.zeros(num_rows, np.bool_) for _ in range(2))
    if before.num_rows:
        database.register("before", before)
        database.register("split_numbers", pa.table({"split": list(SPLITS), "number": range(len(SPLITS))}))
        found = database.execute(
            f"""WITH known AS (SELECT id, coalesce(min(number) FILTER (selected), min(number)) AS number,
                  bool_and(list_contains(string_split(reasons, ','), '{LEAKAGE}')) AS leaked,
                  bool_or(selected) AS selected
                  FROM before JOIN split_numbers USING (split) GROUP BY id)
                SELECT position, number, leaked, known.selected FROM samples JOIN known USING (id)"""
        ).fetchnumpy()
        place = found["position"]
        number[place], leaked[place], selected[place] = found["number"], found["leaked"], found["selected"]
    return number, leaked, selected


def _draws(database: duckdb.DuckDBPyConnection, groups: Ints, seed: int) -> npt.NDArray[np.float64]:
    """The draw of each leakage group, by its smallest key.

    Declared groups come before ids, so a new smaller id changes nothing.
    """
    key = """coalesce('group/' || source || '/' || "group", 'id/' || id)"""
    drawn = draws(database, f"SELECT {key} AS key FROM samples", seed)
    leaders, size = np.unique(groups, return_counts=True)
    in_some = np.flatnonzero(np.isin(groups, leaders[size > 1]))
    database.register("grouped", pa.table({"position": in_some, "leader": groups[in_some]}))
    smallest = (
        f"""SELECT min({key}) AS key FROM samples JOIN grouped USING (position) GROUP BY leader ORDER BY leader"""
    )
    drawn[leaders[size > 1]] = draws(database, smallest, seed)
    return drawn[leaders]


def _labels(database: duckdb.DuckDBPyConnection) -> Ints:
    rows = database.sql("SELECT label FROM samples").to_arrow_table()["label"]
    codes = rows.dictionary_encode().combine_chunks()
    order = pc.sort_indices(codes.dictionary).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return np.append(rank, -1)[codes.indices.fill_null(len(rank)).to_numpy()]


def _dead_letters(job: Job) -> tuple[int, Counter[str]]:
    """Dead letters of the release's own shards, and their members of unknown extension, by extension."""
    total, unknown = 0, Counter[str]()
    named = Counter(
        item.digest for entry in job.inputs for item in entry.outputs if item.name == "dead_letters.parquet"
    )
    with ThreadPoolExecutor(READERS) as pool:
        read = pool.map(lambda digest: pq.read_metadata(job.store.fetch(digest, job.workdir / "letters")), named)
        for times, letters in zip(named.values(), read, strict=True):
            total += times * letters.num_rows
            counts = json.loads((letters.metadata or {}).get(UNKNOWN_KEY, b"{}"))
            unknown.update({extension: times * count for extension, count in counts.items()})
    return total, unknown


def _write_documents(
    workdir: Path, shards: list[Shard], record: Mapping[str, Any], statistics: Mapping[str, Json], schema: pa.Schema
) -> list[OutputFile]:
    croissant = croissant_document(record, schema, samples_digest=record["checksums"]["samples"])
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
