"""Freezes one shard: raw objects in, a deterministic WebDataset tar and two tables out.

Invariants: every raw sample of the shard is in exactly one of ``samples.parquet`` and ``dead_letters.parquet``; blobs
are byte-identical to the raw ones; the outputs depend on the raw bytes and the action alone. Memory holds a blob, a
row group and the buffers of sorting, whatever the size of the shard: samples wait on disk, sorted by the names of
their members for the tar and by id for the table.
"""

import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote

from mm_assets.drops.collection import Collection
from mm_assets.drops.disk_sort import DiskSort
from mm_assets.drops.fields import printable
from mm_assets.drops.labels import label_statements
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.parts import is_plain
from mm_assets.drops.record import Drop, parse_drop
from mm_assets.drops.samples import Rejection, Sample, id_of
from mm_assets.drops.time_ranges import ranged
from mm_assets.identity.canonical import Json, canonical_json
from mm_assets.modalities.table import MODALITIES, NAMES
from mm_assets.snapshot.blobs import PART_COLUMNS, blobs_of
from mm_assets.snapshot.schema import DEAD_LETTERS_SCHEMA, UNKNOWN_KEY, samples_schema
from mm_assets.snapshot.shard import ShardPlace, read_shard
from mm_assets.store.commit import OutputFile, StageResult
from mm_assets.store.job import Job
from mm_assets.store.tables import PARQUET_TYPE, TAR_TYPE, RowsWriter

#: What a part of a sample that is not plain weighs in its row: a digest, three numbers and a format.
PART_BYTES = 150
LETTER_ORDER = ("id", "object", "member", "reason", "detail")


def compute_snapshot(job: Job) -> StageResult:
    """``samples.tar``, ``samples.parquet`` and ``dead_letters.parquet`` of one shard.

    Raises:
        ObjectMissingError: a raw object does not exist. ObjectCorruptError: it has other bytes than declared.
        DropError: an index is unusable. StageError: a tar cannot be read to its end, or has too many members.
    """
    parts = [
        (parse_drop(job.store.get_bytes(entry.manifest), entry.manifest), [item.name for item in entry.outputs])
        for entry in job.inputs
    ]
    config = SnapshotConfig(**cast("dict[str, int]", job.params["config"]))
    rows_place = cast("dict[str, int] | None", job.params["rows"])
    place = None if rows_place is None else ShardPlace(**rows_place)
    counts = _Counts()
    with Collection(job.workdir, config) as found:
        read_shard(job, parts, place, found)
        counts.num_ignored = found.num_ignored
        counts.unknown = {name: entry.num_members for name, entry in sorted(found.unknown.items())}
        samples = DiskSort(job.workdir, "stems", num_keys=1)
        letters = DiskSort(job.workdir, "letters", num_keys=len(LETTER_ORDER))
        counts.has_parts = _sort_out(found, samples, letters)
        rows = DiskSort(job.workdir, "rows", num_keys=1)
        with (job.workdir / "samples.tar").open("wb") as file:
            _write_tar(samples, found, file, rows)
        schema = samples_schema(has_parts=counts.has_parts)
        with RowsWriter(job.workdir / "samples.parquet", schema) as table:
            for row in _rows(rows, found):
                counts.add_row(row)
                table.append(row, size_bytes=len(str(row["metadata"])) + PART_BYTES * _num_parts(row))
    schema = DEAD_LETTERS_SCHEMA
    if counts.unknown:
        schema = schema.with_metadata({UNKNOWN_KEY: canonical_json(counts.unknown)})
    with RowsWriter(job.workdir / "dead_letters.parquet", schema) as table:
        for *_, letter in letters:
            counts.add_letter(letter)
            table.append(letter, size_bytes=len(letter["detail"]))
    return StageResult(
        files=(
            OutputFile(
                name="samples.tar", path=job.workdir / "samples.tar", media_type=TAR_TYPE, num_rows=counts.num_rows
            ),
            _table_file(job.workdir / "samples.parquet", counts.num_rows),
            _table_file(job.workdir / "dead_letters.parquet", counts.num_letters),
        ),
        stats=counts.stats(),
    )


def member_stem(sample_id: str) -> str:
    """The name of a sample's members in ``samples.tar`` before their extension: no dot, no slash, ASCII."""
    return quote(sample_id, safe="").replace(".", "%2E")


def _sort_out(found: Collection, samples: DiskSort, letters: DiskSort) -> bool:
    """Samples by the stem of their members, and what was rejected as rows of ``dead_letters.parquet``.

    Returns:
        Whether a sample is not plain.
    """
    has_parts = False
    for drop, made in found.read_back():
        if isinstance(made, Rejection):
            letter = _letter(drop, made)
            letters.append(*(str(letter[name] or "") for name in LETTER_ORDER), letter)
            continue
        sample_id = id_of(drop, made.key)
        metadata = made.metadata.encode()
        place = found.descriptions.append(metadata), len(metadata)
        # A stem holds no dot, so sorting by stem and dot keeps the members of a sample together and sorts as their
        # names do, as WebDataset readers expect.
        has_parts |= not is_plain([part.modality for part in made.parts])
        parts = [(part.modality, part.offset, part.digest, part.size_bytes, part.format) for part in made.parts]
        samples.append(member_stem(sample_id) + ".", _row(sample_id, drop, made), parts, place)
    return has_parts


def _write_tar(samples: DiskSort, found: Collection, file: IO[bytes], rows: DiskSort) -> None:
    """Writes the members, sorted by name, and passes on each sample's row with the offsets of its blobs.

    A blob that samples are ranges of time of is written with the first of them; ``owners`` knows where.
    """
    owners: dict[str, tuple[str, int]] = {}
    for stem, row, parts, place in samples:
        numbered = not is_plain([part[0] for part in parts])
        members = [
            (f"{stem}{number}.{part[4]}" if numbered else f"{stem}{part[4]}", number)
            for number, part in enumerate(parts)
        ]
        offsets: dict[int, int] = {}
        for name, number in sorted([*members, (f"{stem}json", -1)]):
            if number < 0:
                time_range = _time_range(row, parts, [member for member, _ in members], owners)
                _append_member(file, name, _description(row, found.descriptions.read(*place), time_range))
                continue
            modality, offset, digest, size_bytes, _ = parts[number]
            if digest in owners and f"{modality}_start_us" in row:
                offsets[number] = owners[digest][1]
                continue
            offsets[number] = _append_member(file, name, found.blobs.read(offset, size_bytes))
            if MODALITIES[modality].has_time_ranges:
                owners.setdefault(digest, (name, offsets[number]))
        rows.append(row["id"], row | _blob_columns(parts, offsets, numbered=numbered), place)
    end = file.tell() + 2 * tarfile.BLOCKSIZE
    file.write(bytes(2 * tarfile.BLOCKSIZE + -end % tarfile.RECORDSIZE))


def _rows(rows: DiskSort, found: Collection) -> Iterator[dict[str, object]]:
    """The rows of ``samples.parquet``, by id, with their metadata."""
    for _, row, place in rows:
        metadata = found.descriptions.read(*place).decode()
        yield row | {"metadata": metadata, **label_statements(metadata)}


def _num_parts(row: Mapping[str, Any]) -> int:
    """Of a sample that is not plain; 0 for one that is."""
    return sum(len(row.get(name) or ()) for name in PART_COLUMNS)


def _blob_columns(parts: list[list[Any]], offsets: Mapping[int, int], *, numbered: bool) -> dict[str, object]:
    """What a row says about its blobs: the first of each modality, and all of them where they are numbered."""
    columns: dict[str, Any] = {}
    for place, (modality, _, digest, size_bytes, kind) in enumerate(parts):
        part = {"digest": digest, "offset": offsets[place], "size_bytes": size_bytes, "format": kind}
        if f"{modality}_digest" not in columns:
            columns |= {f"{modality}_{name}": value for name, value in part.items()}
        if numbered:
            columns.setdefault(f"{modality}_parts", []).append({"place": place, **part})
    return columns


def _row(sample_id: str, drop: Drop, sample: Sample) -> dict[str, object]:
    """A sample's row of ``samples.parquet`` but for its metadata, and its blobs in a tar that is not written yet."""
    row: dict[str, object] = {
        "id": sample_id,
        "source": drop.source,
        "drop": drop.drop,
        "key": sample.key,
        "object": drop.place(sample.object),
        "label": sample.label,
        "language": sample.language,
        "group": sample.group,
    }
    present = {part.modality for part in sample.parts}
    modality = ranged(present)
    if modality is not None and sample.time_range is not None:
        row[f"{modality}_start_us"], row[f"{modality}_end_us"] = sample.time_range
    return row | {f"has_{modality}": modality in present for modality in NAMES}


def _append_member(file: IO[bytes], name: str, data: bytes) -> int:
    """Writes one member with a zeroed header and returns the offset of its data."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    file.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
    offset = file.tell()
    file.write(data)
    file.write(bytes(-len(data) % tarfile.BLOCKSIZE))
    return offset


def _time_range(
    row: Mapping[str, Any], parts: Sequence[list[Any]], members: Sequence[str], owners: Mapping[str, tuple[str, int]]
) -> dict[str, Json] | None:
    """Of a sample that is a range of time the member that holds its blob, and the range; else None."""
    for (modality, _, digest, _, _), name in zip(parts, members, strict=True):
        if f"{modality}_start_us" in row:
            ends = {end: row[f"{modality}_{end}"] for end in ("start_us", "end_us")}
            return {"member": owners[digest][0] if digest in owners else name, **ends}
    return None


def _description(row: Mapping[str, Any], metadata: bytes, time_range: dict[str, Json] | None) -> bytes:
    """The sample's JSON member; ``metadata`` is canonical JSON already."""
    head = canonical_json({name: row[name] for name in ("id", "label", "language", "group")})
    # "metadata" and "time_range" sort after the other names.
    tail = b"}" if time_range is None else b',"time_range":' + canonical_json(time_range) + b"}"
    return head[:-1] + b',"metadata":' + metadata + tail


def _letter(drop: Drop, rejection: Rejection) -> dict[str, object]:
    member = rejection.member
    if member is None and rejection.line is not None:
        member = f"{drop.index.name}:{rejection.line}"
    return {
        "id": None if rejection.key is None else printable(id_of(drop, rejection.key)),
        "object": drop.place(rejection.object),
        "member": None if member is None else printable(member),
        "modality": rejection.modality,
        "stage": "snapshot",
        "reason": rejection.reason,
        "detail": printable(rejection.detail),
        "digest": rejection.digest,
        "size_bytes": rejection.size_bytes,
    }


def _table_file(path: Path, num_rows: int) -> OutputFile:
    return OutputFile(name=path.name, path=path, media_type=PARQUET_TYPE, num_rows=num_rows)


class _Counts:
    """What the manifest says about the shard in numbers, counted while it is written."""

    def __init__(self) -> None:
        self.num_rows = self.num_letters = self.num_ignored = self.blob_bytes = 0
        self.unknown: dict[str, int] = {}
        self.has_parts = False
        self._parts = Counter[str]()
        self._modalities = Counter[str]()
        self._combinations = Counter[str]()
        self._reasons = Counter[str]()

    def add_row(self, row: Mapping[str, Any]) -> None:
        present = [modality for modality in NAMES if row[f"has_{modality}"]]
        self.num_rows += 1
        for blob in blobs_of(row):
            self.blob_bytes += blob.size_bytes
            self._parts[blob.modality] += 1
        self._modalities.update(present)
        self._combinations["+".join(present)] += 1

    def add_letter(self, letter: Mapping[str, Any]) -> None:
        self.num_letters += 1
        self._reasons[letter["reason"]] += 1

    def stats(self) -> dict[str, Json]:
        return {
            "rows_in": self.num_rows + self.num_letters,
            "rows_out": self.num_rows,
            "dead_letters": self.num_letters,
            "ignored_members": self.num_ignored,
            "unknown_members": self.unknown,
            "modalities": {modality: self._modalities[modality] for modality in NAMES},
            **({"parts": {modality: self._parts[modality] for modality in NAMES}} if self.has_parts else {}),
            "combinations": dict(sorted(self._combinations.items())),
            "reasons": dict(sorted(self._reasons.items())),
            "blob_bytes": self.blob_bytes,
        }
