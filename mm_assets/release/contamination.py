"""Contamination: what a frozen evaluation set tests on never trains here.

Every frozen release keeps the keys of its test split: of each sample its whole content, its picture, its recording and
its text where that is long; of a sample with parts also each picture and recording. The keys of its line come from its
parent; those of evaluation sets in force are inputs of their own. A sample with one of the keys stays out of every
split but test, and so does one that is near to a sample of an evaluation set (``near_sets.py``); what is near to the
line's is in one leakage group with it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from mm_assets.identity.canonical import Json
from mm_assets.modalities.table import CAUSAL, MODALITIES
from mm_assets.release.config import PARENT, FreezeConfig
from mm_assets.release.dedup import CONTENT, PART_KEYS, Ints
from mm_assets.release.near_sets import SIGNATURES_FILE
from mm_assets.release.title import dataset_name
from mm_assets.store.job import Job
from mm_assets.store.manifest import Input, Manifest
from mm_assets.store.objects import Store
from mm_assets.store.tables import ROW_GROUP_ROWS, read_parquet, write_batches

EVALUATION_SET = "evaluation_set"
KEYS_FILE = "evaluation_keys.parquet"
#: What is read of an evaluation set: its keys, and what it is called.
EVALUATION_OUTPUTS = (KEYS_FILE, "record.json")
CONTAMINATION = "contamination"


def evaluation_keys(config: FreezeConfig) -> list[str]:
    """SQL expressions for the keys of a row; NULL where it has none."""
    keys = [CONTENT]
    for name, row in MODALITIES.items():
        key = f"'{name}|' || {row.digest_column}"
        long = f"{name}_chars >= {config.min_linked_text_chars}"
        keys.append(f"CASE WHEN {long} THEN {key} END" if name in CAUSAL else key)
    return keys


def evaluation_sets(made: Job | Manifest) -> list[Input]:
    """The evaluation sets that a release is held against: its parent's line first, then those that were named."""
    line = [
        entry
        for entry in made.inputs_of("dataset_release", PARENT)
        if any(output.name == KEYS_FILE for output in entry.outputs)
    ]
    return [*line, *made.inputs_of("dataset_release", EVALUATION_SET)]


def find_contaminated(
    database: duckdb.DuckDBPyConnection, store: Store, sets: list[Input], config: FreezeConfig, folder: Path
) -> Ints:
    """For every row of ``samples``, by position, the first of ``sets`` that holds one of its keys, or -1."""
    num_rows = database.execute("SELECT count(*) FROM samples").fetchall()[0][0]
    found = np.full(num_rows, -1, dtype=np.int64)
    union = " UNION ALL ".join(
        [
            *(f"SELECT position, {expression} AS key FROM samples" for expression in evaluation_keys(config)),
            PART_KEYS.format(source="samples"),
        ]
    )
    for number, entry in reversed(list(enumerate(sets))):
        database.register("evaluated", read_parquet(store.fetch(entry.digest(KEYS_FILE), folder)))
        rows = database.execute(f"SELECT DISTINCT position FROM ({union}) JOIN evaluated USING (key)").fetchnumpy()
        database.unregister("evaluated")
        found[rows["position"]] = number
    return found


def write_evaluation_keys(database: duckdb.DuckDBPyConnection, job: Job, config: FreezeConfig, path: Path) -> int:
    """Writes the keys of the test split, the line's included, sorted; returns their number.

    Args:
        database: Holds ``judged``.
        job: Its inputs name the parent's keys.
        config: Which texts are long.
        path: Where to write.
    """
    parts = [
        f"SELECT {expression} AS key FROM judged WHERE split = 'test' AND selected"
        for expression in evaluation_keys(config)
    ]
    tested = "(SELECT position, parts FROM judged WHERE split = 'test' AND selected)"
    parts.append(f"SELECT key FROM ({PART_KEYS.format(source=tested)})")
    for number, entry in enumerate(evaluation_sets(job)):
        if entry.role == PARENT:
            table = read_parquet(job.store.fetch(entry.digest(KEYS_FILE), job.workdir / "evaluated"))
            database.register(f"line_{number}", table)
            parts.append(f"SELECT key FROM line_{number}")
    keys = database.sql(f"SELECT DISTINCT key FROM ({' UNION ALL '.join(parts)}) WHERE key IS NOT NULL ORDER BY key")
    return write_batches(keys.to_arrow_reader(ROW_GROUP_ROWS), pa.schema([("key", pa.string())]), path)


def describe_sets(job: Job, contaminated: Ints, is_left_out: np.ndarray) -> list[Json]:
    """Per evaluation set what it is called, its Merkle root, and how many samples it keeps out of training."""
    described: list[Json] = []
    for number, entry in enumerate(evaluation_sets(job)):
        record: Mapping[str, Any] = json.loads(job.store.get_bytes(entry.digest("record.json")))
        described.append(
            {
                "name": dataset_name(record),
                "merkle_root": record["checksums"]["merkle_root"],
                "keys": entry.digest(KEYS_FILE),
                "signatures": next((item.digest for item in entry.outputs if item.name == SIGNATURES_FILE), None),
                "num_samples": int((is_left_out & (contaminated == number)).sum()),
            }
        )
    return described
