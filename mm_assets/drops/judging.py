"""What the checks of snapshot and features have in common: dead-letter budgets and suite, without excluded samples.

Ids are read in batches: a shard can hold millions of samples.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mm_assets.checks.exclusions import Exclusions, excluded_finding
from mm_assets.checks.expectations import dead_letter_findings, run_suite
from mm_assets.checks.suite import Off, Suite
from mm_assets.checks.validations import Finding
from mm_assets.drops.origin import origin_of
from mm_assets.store.tables import read_parquet

BATCH_ROWS = 4096


def judge_rows(
    parts: Iterable[tuple[pa.Table, Suite]],
    *,
    letters: Path,
    given: Sequence[Path],
    suite: Suite,
    exclusions: Exclusions,
) -> tuple[Finding, ...]:
    """The budgets of dead letters, and the suite on its table; excluded samples count nowhere.

    Args:
        parts: The suite in parts, each with what it is about: a row per sample, with its ``id``.
        letters: The dead letters of this stage, a Parquet file.
        given: What the stage was given, the rejected included; by ``id``, and ``object`` of what has none.
        suite: The rules.
        exclusions: Samples that are excluded on record.
    """
    dead, _ = _count([letters], exclusions)
    judged, num_excluded = _count(given, exclusions)
    findings = [*dead_letter_findings(dead, judged, suite)]
    if exclusions.samples:
        findings.append(excluded_finding(num_excluded))
    for table, part in parts:
        findings.extend(run_suite(_kept(table, exclusions), part))
    return tuple(findings)


def suite_parts(path: Path, suite: Suite) -> Iterator[tuple[pa.Table, Suite]]:
    """The suite on a Parquet file one entry at a time, so that memory holds the columns of one entry and the ids."""
    if isinstance(suite.entries, Off):
        yield read_parquet(path, ["id"]), suite
        return
    known = pq.read_schema(path).names
    for entry in suite.entries:
        # An entry about the whole table, and an error about an unknown column, need all of them.
        needs_all = not entry.columns or not set(entry.columns) <= set(known)
        columns = None if needs_all else [name for name in known if name in entry.columns or name == "id"]
        yield read_parquet(path, columns), replace(suite, entries=(entry,))


def _kept(table: pa.Table, exclusions: Exclusions) -> pa.Table:
    if not exclusions.samples:
        return table
    return table.filter(pa.array([not exclusions.covers(name) for name in table["id"].to_pylist()], pa.bool_()))


def _count(paths: Sequence[Path], exclusions: Exclusions) -> tuple[Counter[str], int]:
    """Rows per source that are not excluded, and how many are."""
    counts, num_excluded = Counter[str](), 0
    for row in _rows(paths):
        # What is no sample has no id and is excluded by its raw object.
        if exclusions.covers(row["id"] or row.get("object")):
            num_excluded += 1
        else:
            counts[origin_of(row)[0]] += 1
    return counts, num_excluded


def _rows(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        with pq.ParquetFile(path) as file:
            columns = [name for name in ("id", "object") if name in file.schema_arrow.names]
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns, use_threads=False):
                yield from batch.to_pylist()
