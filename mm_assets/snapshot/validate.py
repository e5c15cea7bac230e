"""The check of a snapshot: the tar, the tables and the data owner's suite, read back from the store.

Tar and table are compared as streams; of the table only the columns of one entry of the suite are held in memory.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import IO

import pyarrow.parquet as pq

from mm_assets.checks.exclusions import read_exclusions
from mm_assets.checks.rules import Rules
from mm_assets.checks.suite import parse_suite
from mm_assets.checks.validations import MAX_FAILING_IDS, Finding
from mm_assets.drops.disk_sort import DiskSort
from mm_assets.drops.judging import judge_rows, suite_parts
from mm_assets.identity.canonical import digest_bytes
from mm_assets.modalities.table import MODALITIES
from mm_assets.scratch import scratch_folder
from mm_assets.snapshot.blobs import PART_COLUMNS, BlobRef, blob_columns, blobs_of
from mm_assets.snapshot.compute import member_stem
from mm_assets.snapshot.schema import UNKNOWN_KEY
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store

SUITE = "snapshot.yaml"
BATCH_ROWS = 4096
#: Where samples have parts, hundreds of them maybe.
PARTS_BATCH_ROWS = 256


def validate_snapshot(store: Store, manifest: Manifest, rules: Rules) -> tuple[Finding, ...]:
    """Tar against table, every blob against its digest, the dead-letter budget, and the suite on ``samples.parquet``.

    Raises:
        ObjectMissingError: an output does not exist. ObjectCorruptError: it has other bytes.
    """
    suite = parse_suite(rules.read(SUITE), SUITE)
    with scratch_folder("check") as folder:
        samples = store.fetch(manifest.output("samples.parquet").digest, folder)
        letters = store.fetch(manifest.output("dead_letters.parquet").digest, folder)
        tar = store.fetch(manifest.output("samples.tar").digest, folder)
        return (
            *_tar_findings(tar, samples, folder),
            _unknown_finding(pq.read_metadata(letters)),
            *judge_rows(
                suite_parts(samples, suite),
                letters=letters,
                given=[samples, letters],
                suite=suite,
                exclusions=read_exclusions(rules),
            ),
        )


@dataclass(frozen=True, slots=True)
class _Member:
    """What the table promises about a member; the offset and digest of a description are not in it."""

    name: str
    sample: str
    offset: int | None
    size_bytes: int | None
    digest: str | None


@dataclass(kw_only=True, slots=True)
class _Wrong:
    """How many things are wrong, and the first of them."""

    num_failing: int = 0
    names: list[str] = field(default_factory=list[str])

    def add(self, name: str) -> None:
        self.num_failing += 1
        if len(self.names) < MAX_FAILING_IDS:
            self.names.append(name)

    def finding(self, rule: str, detail: str) -> Finding:
        return Finding(
            rule=rule,
            passed=not self.num_failing,
            detail=detail,
            num_failing=self.num_failing,
            failing_ids=tuple(sorted(self.names)),
        )


def _tar_findings(tar: Path, samples: Path, folder: Path) -> tuple[Finding, Finding]:
    """The tar holds exactly the members the table promises, where it promises them, and each blob has its digest."""
    members, blobs = _Wrong(), _Wrong()
    num_members = num_blobs = 0
    promised = _promised(samples, folder, members)
    due = next(promised, None)
    with tarfile.open(tar, "r:") as archive, tar.open("rb") as file:
        for info in archive:
            archive.members = []  # pyright: ignore[reportAttributeAccessIssue] - else it keeps every header
            num_members += 1
            while due is not None and due.name < info.name:
                members.add(due.name)
                due = next(promised, None)
            if due is None or due.name != info.name:
                members.add(info.name)
                continue
            if due.digest is not None:
                num_blobs += 1
                if (due.offset, due.size_bytes) != (info.offset_data, info.size):
                    members.add(info.name)
                if not _has_digest(file, due):
                    blobs.add(due.sample)
            due = next(promised, None)
    while due is not None:
        members.add(due.name)
        due = next(promised, None)
    return (
        members.finding(
            "samples.tar matches samples.parquet",
            f"{num_members} members in samples.tar, {members.num_failing} missing, unexpected or elsewhere than "
            "recorded",
        ),
        blobs.finding(
            "blobs match their digests",
            f"{num_blobs} blobs read at their offsets, {blobs.num_failing} with another digest",
        ),
    )


def _promised(samples: Path, folder: Path, wrong: _Wrong) -> Iterator[_Member]:
    """The members that the table promises, sorted by name, as they are in the tar.

    A range of time of a blob that an earlier sample has is no member; it has to be where the blob is.
    """
    stems = DiskSort(folder, "stems", num_keys=1)
    columns = ["id", *blob_columns(samples)]
    batch_rows = PARTS_BATCH_ROWS if set(PART_COLUMNS) & set(columns) else BATCH_ROWS
    with pq.ParquetFile(samples) as table:
        for batch in table.iter_batches(batch_size=batch_rows, columns=columns, use_threads=False):
            for row in batch.to_pylist():
                stem = member_stem(row["id"]) + "."
                blobs = [
                    [stem + blob.extension, blob.offset, blob.size_bytes, blob.digest, _is_time_range(blob)]
                    for blob in blobs_of(row)
                ]
                described = [f"{stem}json", None, None, None, None]
                stems.append(stem, row["id"], sorted([*blobs, described], key=itemgetter(0)))
    owners: dict[str, list[int]] = {}
    for _, sample, members in stems:
        for name, *place, is_range in members:
            if is_range and owners.setdefault(place[-1], place) is not place:
                if owners[place[-1]] != place:
                    wrong.add(name)
                continue
            if is_range is False:
                owners.setdefault(place[-1], place)
            yield _Member(name, sample, *place)


def _is_time_range(blob: BlobRef) -> bool | None:
    """Whether it is a range of time of a blob; None for a modality that has none."""
    return blob.time_range is not None if MODALITIES[blob.modality].has_time_ranges else None


def _has_digest(file: IO[bytes], member: _Member) -> bool:
    file.seek(member.offset or 0)
    return digest_bytes(file.read(member.size_bytes or 0)) == member.digest


def _unknown_finding(letters: pq.FileMetaData) -> Finding:
    """How many members have an unknown extension; no failure, as their bytes are not what a sample is made of."""
    unknown: dict[str, int] = json.loads((letters.metadata or {}).get(UNKNOWN_KEY, b"{}"))
    counted = ", ".join(f"{extension} {count}" for extension, count in unknown.items())
    detail = (
        f"{sum(unknown.values())} members have an unknown extension ({counted}): their digests are kept in the "
        "metadata of their samples, and no stage reads their bytes"
    )
    return Finding(
        rule="members of unknown extension",
        passed=True,
        detail=detail if unknown else "no members have an unknown extension",
    )
