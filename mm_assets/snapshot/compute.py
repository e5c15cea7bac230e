"""Freezes one shard: raw objects in, a deterministic WebDataset tar and two tables out.

Invariants: every raw sample of the shard is in exactly one of ``samples.parquet`` and ``dead_letters.parquet``; blobs
are byte-identical to the raw ones; the outputs depend on the raw bytes and the configuration alone.
"""

import tarfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO, cast
from urllib.parse import quote

import pyarrow as pa

from mm_assets.drops.fields import printable
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.record import Drop, parse_drop
from mm_assets.drops.samples import Rejection, Sample, Spool, id_of, unique_by_id
from mm_assets.identity.canonical import Json, canonical_json
from mm_assets.modalities.table import NAMES
from mm_assets.snapshot.shard import ShardPlace, read_shard
from mm_assets.store.commit import OutputFile, StageResult
from mm_assets.store.job import Job
from mm_assets.store.tables import PARQUET_TYPE, TAR_TYPE, table_of, write_parquet

SAMPLES_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "source", "drop", "key", "object")),
        *(
            field
            for modality in NAMES
            for field in (
                (f"has_{modality}", pa.bool_()),
                (f"{modality}_digest", pa.string()),
                (f"{modality}_offset", pa.int64()),
                (f"{modality}_size_bytes", pa.int64()),
                (f"{modality}_format", pa.string()),
            )
        ),
        *((name, pa.string()) for name in ("label", "language", "group", "metadata")),
    ]
)
DEAD_LETTERS_SCHEMA = pa.schema(
    [
        *(
            (name, pa.string())
            for name in ("id", "object", "member", "modality", "stage", "reason", "detail", "digest")
        ),
        ("size_bytes", pa.int64()),
    ]
)


def compute_snapshot(job: Job) -> StageResult:
    """``samples.tar``, ``samples.parquet`` and ``dead_letters.parquet`` of one shard.

    Raises:
        ObjectMissingError: a raw object does not exist. ObjectCorruptError: it has other bytes than declared.
        DropError: an index is unusable. StageError: a tar has too many members.
    """
    parts = [
        (parse_drop(job.store.get_bytes(entry.manifest), entry.manifest), [item.name for item in entry.outputs])
        for entry in job.inputs
    ]
    config = SnapshotConfig(**cast("dict[str, int]", job.params["config"]))
    rows_place = cast("dict[str, int] | None", job.params["rows"])
    place = None if rows_place is None else ShardPlace(**rows_place)
    workdir = job.workdir
    with Spool(workdir / "spool") as spool:
        samples, rejected, num_ignored = unique_by_id(read_shard(job.store, parts, place, config, spool, workdir))
        with (workdir / "samples.tar").open("wb") as file:
            rows = _write_samples(samples, spool, file)
    letters = sorted((_letter(drop, rejection) for drop, rejection in rejected), key=_letter_order)
    write_parquet(table_of(rows, SAMPLES_SCHEMA), workdir / "samples.parquet")
    write_parquet(table_of(letters, DEAD_LETTERS_SCHEMA), workdir / "dead_letters.parquet")
    return StageResult(
        files=(
            OutputFile(name="samples.tar", path=workdir / "samples.tar", media_type=TAR_TYPE, num_rows=len(rows)),
            _table_file(workdir / "samples.parquet", len(rows)),
            _table_file(workdir / "dead_letters.parquet", len(letters)),
        ),
        stats=_stats(rows, letters, num_ignored),
    )


def member_stem(sample_id: str) -> str:
    """The name of a sample's members in ``samples.tar`` before their extension: no dot, no slash, ASCII."""
    return quote(sample_id, safe="").replace(".", "%2E")


def _write_samples(
    samples: Mapping[str, tuple[Drop, Sample]], spool: Spool, file: IO[bytes]
) -> list[dict[str, object]]:
    """Writes the tar, sorted by member name, and returns the rows that describe it, sorted by id.

    A stem holds no dot, so sorting by name keeps the members of a sample together, as WebDataset readers expect.
    """
    rows = {sample_id: _row(sample_id, *samples[sample_id]) for sample_id in sorted(samples)}
    members = [(f"{member_stem(sample_id)}.json", sample_id, None) for sample_id in samples]
    for sample_id, (_, sample) in samples.items():
        stem = member_stem(sample_id)
        members += [(f"{stem}.{blob.format}", sample_id, modality) for modality, blob in sample.blobs.items()]
    for name, sample_id, modality in sorted(members, key=lambda member: member[0]):
        sample = samples[sample_id][1]
        if modality is None:
            _append_member(file, name, _description(sample_id, sample))
        else:
            rows[sample_id][f"{modality}_offset"] = _append_member(file, name, spool.read(sample.blobs[modality]))
    end = file.tell() + 2 * tarfile.BLOCKSIZE
    file.write(bytes(2 * tarfile.BLOCKSIZE + -end % tarfile.RECORDSIZE))
    return list(rows.values())


def _row(sample_id: str, drop: Drop, sample: Sample) -> dict[str, object]:
    """A sample's row of ``samples.parquet`` but for the offsets, which are known once the tar is written."""
    row: dict[str, object] = {
        "id": sample_id,
        "source": drop.source,
        "drop": drop.drop,
        "key": sample.key,
        "object": drop.prefix + sample.object,
        "label": sample.label,
        "language": sample.language,
        "group": sample.group,
        "metadata": sample.metadata,
    }
    for modality in NAMES:
        blob = sample.blobs.get(modality)
        row[f"has_{modality}"] = blob is not None
        if blob is not None:
            row[f"{modality}_digest"] = blob.digest
            row[f"{modality}_size_bytes"] = blob.size_bytes
            row[f"{modality}_format"] = blob.format
    return row


def _append_member(file: IO[bytes], name: str, data: bytes) -> int:
    """Writes one member with a zeroed header and returns the offset of its data."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    file.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
    offset = file.tell()
    file.write(data)
    file.write(bytes(-len(data) % tarfile.BLOCKSIZE))
    return offset


def _description(sample_id: str, sample: Sample) -> bytes:
    head = canonical_json({"id": sample_id, "label": sample.label, "language": sample.language, "group": sample.group})
    # The metadata is canonical JSON already; "metadata" sorts after the other names.
    return head[:-1] + b',"metadata":' + sample.metadata.encode() + b"}"


def _letter(drop: Drop, rejection: Rejection) -> dict[str, object]:
    member = rejection.member
    if member is None and rejection.line is not None:
        member = f"{drop.index.key}:{rejection.line}"
    return {
        "id": None if rejection.key is None else printable(id_of(drop, rejection.key)),
        "object": drop.prefix + rejection.object,
        "member": None if member is None else printable(member),
        "modality": rejection.modality,
        "stage": "snapshot",
        "reason": rejection.reason,
        "detail": printable(rejection.detail),
        "digest": rejection.digest,
        "size_bytes": rejection.size_bytes,
    }


def _letter_order(letter: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(str(letter[name] or "") for name in ("id", "object", "member", "reason", "detail"))


def _table_file(path: Path, num_rows: int) -> OutputFile:
    return OutputFile(name=path.name, path=path, media_type=PARQUET_TYPE, num_rows=num_rows)


def _stats(rows: list[dict[str, object]], letters: list[dict[str, object]], num_ignored: int) -> dict[str, Json]:
    combinations = Counter("+".join(m for m in NAMES if row[f"has_{m}"]) for row in rows)
    return {
        "rows_in": len(rows) + len(letters),
        "rows_out": len(rows),
        "dead_letters": len(letters),
        "ignored_members": num_ignored,
        "modalities": {m: sum(bool(row[f"has_{m}"]) for row in rows) for m in NAMES},
        "combinations": dict(sorted(combinations.items())),
        "reasons": dict(sorted(Counter(str(letter["reason"]) for letter in letters).items())),
        "blob_bytes": sum(cast("int", row.get(f"{m}_size_bytes") or 0) for row in rows for m in NAMES),
    }
