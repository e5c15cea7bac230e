"""The check of a snapshot: the tar, the tables and the data owner's suite, read back from the store."""

import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from mm_assets.checks.expectations import dead_letter_finding, run_suite
from mm_assets.checks.rules import Rules
from mm_assets.checks.suite import parse_suite
from mm_assets.checks.validations import MAX_FAILING_IDS, Finding
from mm_assets.identity.canonical import digest_bytes
from mm_assets.modalities.table import NAMES
from mm_assets.snapshot.compute import member_stem
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store
from mm_assets.store.tables import read_parquet

SUITE = "snapshot.yaml"


def validate_snapshot(store: Store, manifest: Manifest, rules: Rules) -> tuple[Finding, ...]:
    """Tar against table, every blob against its digest, the dead-letter budget, and the suite on ``samples.parquet``.

    Raises:
        ObjectMissingError: an output does not exist. ObjectCorruptError: it has other bytes.
    """
    suite = parse_suite(rules.read(SUITE), SUITE)
    with tempfile.TemporaryDirectory(prefix="mm-check-") as name:
        folder = Path(name)
        samples = read_parquet(store.fetch(manifest.output("samples.parquet").digest, folder))
        letters = read_parquet(store.fetch(manifest.output("dead_letters.parquet").digest, folder))
        tar = store.fetch(manifest.output("samples.tar").digest, folder)
        return (
            _members_finding(tar, samples),
            _blobs_finding(tar, samples),
            dead_letter_finding(letters.num_rows, samples.num_rows + letters.num_rows, suite),
            *run_suite(samples, suite),
        )


def _members_finding(tar: Path, samples: pa.Table) -> Finding:
    """The tar holds exactly the members the table promises, at the offsets it promises."""
    promised = dict(_promised(samples))
    wrong: list[str] = []
    num_members = 0
    with tarfile.open(tar, "r:") as archive:
        for info in archive:
            num_members += 1
            if promised.pop(info.name, None) not in ((info.offset_data, info.size), (None, None)):
                wrong.append(info.name)
    wrong.extend(promised)
    return Finding(
        rule="samples.tar matches samples.parquet",
        passed=not wrong,
        detail=f"{num_members} members in samples.tar, {len(wrong)} missing, unexpected or elsewhere than recorded",
        num_failing=len(wrong),
        failing_ids=tuple(sorted(wrong)[:MAX_FAILING_IDS]),
    )


def _promised(samples: pa.Table) -> Iterator[tuple[str, tuple[int | None, int | None]]]:
    for row in samples.to_pylist():
        stem = member_stem(row["id"])
        yield f"{stem}.json", (None, None)
        for modality in NAMES:
            if row[f"has_{modality}"]:
                place = (row[f"{modality}_offset"], row[f"{modality}_size_bytes"])
                yield f"{stem}.{row[f'{modality}_format']}", place


def _blobs_finding(tar: Path, samples: pa.Table) -> Finding:
    wrong: list[str] = []
    num_blobs = 0
    with tar.open("rb") as file:
        for row in samples.to_pylist():
            for modality in NAMES:
                if not row[f"has_{modality}"]:
                    continue
                num_blobs += 1
                file.seek(row[f"{modality}_offset"])
                if digest_bytes(file.read(row[f"{modality}_size_bytes"])) != row[f"{modality}_digest"]:
                    wrong.append(row["id"])
    return Finding(
        rule="blobs match their digests",
        passed=not wrong,
        detail=f"{num_blobs} blobs read at their offsets, {len(wrong)} with another digest",
        num_failing=len(wrong),
        failing_ids=tuple(sorted(wrong)[:MAX_FAILING_IDS]),
    )
