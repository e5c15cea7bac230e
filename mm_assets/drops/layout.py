"""Where the rows of an index are, so that a shard reads its own and no others.

Rows are dealt in runs of neighbours: run i -> shard i mod N. An index of lines has eight runs a shard (or one a row,
where there are fewer rows), so that an index in the order of its classes does not make shards of one class; a Parquet
index has one, because its row groups can only be read whole. Each part has the digest of its bytes, so that what is
read of an index is verified without reading the rest.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from mm_assets.drops.columns import NO_COLUMNS, Columns
from mm_assets.drops.disk_sort import DiskSort
from mm_assets.drops.index import Part, line_places, parquet_parts, read_index, whole
from mm_assets.identity.canonical import CHUNK_BYTES, canonical_json
from mm_assets.modalities.reasons import Refusal

SCHEMA = "mm.index_layout/1"
RUNS_PER_SHARD = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The parts of an index for one number of shards.

    Attributes:
        num_rows: Of all rows.
        num_runs: How many runs they are dealt in.
        parts: In order.
        sha256: Of the bytes of each part.
        shared: Offset and size of what every reader needs: the footer of a Parquet file, the first row of a CSV file.
        shared_sha256: Of these bytes.
        repeated: Numbers of the rows whose id an earlier row has.
    """

    num_rows: int
    num_runs: int
    parts: tuple[Part, ...]
    sha256: tuple[str, ...]
    shared: tuple[int, int]
    shared_sha256: str
    repeated: frozenset[int]

    def run_of(self, row: int) -> int:
        """The run that a row belongs to; runs differ by one row at most."""
        return ((row + 1) * self.num_runs - 1) // self.num_rows

    def parts_of(self, shard: int, num_shards: int) -> list[int]:
        """Numbers of the parts that hold a row of the shard."""
        found: list[int] = []
        ends = [*(part.first_row for part in self.parts[1:]), self.num_rows][: len(self.parts)]
        for number, (part, end) in enumerate(zip(self.parts, ends, strict=True)):
            runs = range(self.run_of(part.first_row), self.run_of(end - 1) + 1) if end > part.first_row else range(0)
            if len(runs) >= num_shards or any(run % num_shards == shard for run in runs):
                found.append(number)
        return found

    def encode(self) -> bytes:
        """Canonical JSON."""
        content = asdict(self) | {"repeated": sorted(self.repeated)}
        return canonical_json({"schema": SCHEMA, **content})


def parse_layout(data: bytes) -> Layout:
    """What ``Layout.encode`` made."""
    content = json.loads(data)
    return Layout(
        num_rows=content["num_rows"],
        num_runs=content["num_runs"],
        parts=tuple(Part(**part) for part in content["parts"]),
        sha256=tuple(content["sha256"]),
        shared=(content["shared"][0], content["shared"][1]),
        shared_sha256=content["shared_sha256"],
        repeated=frozenset(content["repeated"]),
    )


def lay_out(path: Path, where: str, num_shards: int, folder: Path, columns: Columns = NO_COLUMNS) -> Layout:
    """Reads an index once and says where its rows are.

    Args:
        path: The index.
        where: What errors call it.
        num_shards: Among how many shards the rows are dealt.
        folder: For the sorting of ids.
        columns: The names its columns have.

    Raises:
        DropError: the index is unusable.
    """
    ids = DiskSort(folder, "ids", num_keys=2)
    num_rows = 0
    for row in read_index(path, where, columns, only=("id",)):
        num_rows += 1
        if not isinstance(row.columns, Refusal):
            ids.append(row.columns["id"], row.number)
    is_parquet = path.suffix == ".parquet"
    num_runs = min(num_rows, num_shards * (1 if is_parquet else RUNS_PER_SHARD))
    size_bytes = path.stat().st_size
    parts = parquet_parts(path, where) if is_parquet else list(_line_parts(path, where, num_rows, num_runs))
    if is_parquet:
        begin = max((part.offset + part.size_bytes for part in parts), default=0)
        shared = begin, size_bytes - begin
    else:
        shared = 0, whole(path, where).offset
    return Layout(
        num_rows=num_rows,
        num_runs=num_runs,
        parts=tuple(parts),
        sha256=tuple(_digest(path, part.offset, part.size_bytes) for part in parts),
        shared=shared,
        shared_sha256=_digest(path, *shared),
        repeated=frozenset(_repeated(ids)),
    )


def _repeated(ids: DiskSort) -> Iterator[int]:
    before: str | None = None
    for sample_id, number in ids:
        if sample_id == before:
            yield number
        before = sample_id


def _line_parts(path: Path, where: str, num_rows: int, num_runs: int) -> Iterator[Part]:
    size_bytes = path.stat().st_size
    begun: tuple[int, int, int] | None = None
    run = 0
    for row, (offset, line) in enumerate(line_places(path, where)):
        if (row + 1) * num_runs > run * num_rows:
            if begun is not None:
                yield _part(begun, offset)
            begun = offset, row, line
            run += 1
    if begun is not None:
        yield _part(begun, size_bytes)


def _part(begun: tuple[int, int, int], end: int) -> Part:
    offset, first_row, first_line = begun
    return Part(offset=offset, size_bytes=end - offset, first_row=first_row, first_line=first_line)


def _digest(path: Path, offset: int, size_bytes: int) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(offset)
        while size_bytes > 0 and (chunk := file.read(min(size_bytes, CHUNK_BYTES))):
            hasher.update(chunk)
            size_bytes -= len(chunk)
    return hasher.hexdigest()
