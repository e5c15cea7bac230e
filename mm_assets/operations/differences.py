"""Where what was computed again differs from what a partition is: the output, the row and the samples."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mm_assets.identity.canonical import Json, canonical_json, digest_file
from mm_assets.store.commit import OutputFile, StageResult
from mm_assets.store.manifest import Manifest, Output
from mm_assets.store.objects import Store
from mm_assets.store.tables import ARROW_TYPE, BATCH_ROWS, PARQUET_TYPE

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """The first difference: partition, output, what differs there, and all samples of that output that changed."""

    partition: str
    output: str
    detail: str
    samples: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.partition}: {self.output}: {self.detail}"


def first_difference(store: Store, manifest: Manifest, result: StageResult, folder: Path) -> Difference | None:
    """The first output that differs by name, or a fact that does; None where everything is equal.

    Args:
        store: Holds what the partition is.
        manifest: Says what that is.
        result: What was computed again.
        folder: Where objects of the store are fetched to.
    """
    path = manifest.partition.path
    known = {output.name: output for output in manifest.outputs}
    made = {file.name: file for file in result.files}
    digests = {file.name: digest_file(file.path) for file in result.files}
    digests |= {output.name: output.digest for output in result.stored}
    for output in sorted({*known, *digests}):
        if output not in digests or output not in known:
            missing = "new" if output not in digests else "old"
            return Difference(partition=path, output=output, detail=f"the {missing} code does not make it")
        if digests[output] != known[output].digest:
            detail, samples = f"expected {known[output].digest}, got {digests[output]}", ()
            if output in made:
                detail, samples = _where(store, known[output], made[output], folder)
            return Difference(partition=path, output=output, detail=detail, samples=samples)
    # An action is remembered with its facts too: other facts for the same action would be non-determinism.
    before, after = manifest.stats, json.loads(canonical_json(dict(result.stats)))
    return None if before == after else Difference(partition=path, output="stats", detail=_fact(before, after))


def _fact(before: Mapping[str, Json], after: Mapping[str, Json]) -> str:
    name = next(name for name in sorted({*before, *after}) if before.get(name) != after.get(name))
    return f"{name}: expected {_short(before.get(name))}, got {_short(after.get(name))}"


def _where(store: Store, known: Output, made: OutputFile, folder: Path) -> tuple[str, tuple[str, ...]]:
    """Where two files part, a row of a table or a byte, and which samples changed."""
    path = store.fetch(known.digest, folder)
    if known.media_type in (PARQUET_TYPE, ARROW_TYPE):
        old, new = _read_table(path, known.media_type), _read_table(made.path, known.media_type)
        row = first_row(old, new)
        if row is not None:
            return row, changed_samples(old, new)
    return _first_byte(path, made.path), ()


def _read_table(path: Path, media_type: str) -> pa.Table:
    if media_type == PARQUET_TYPE:
        return pq.read_table(path)
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def first_row(old: pa.Table, new: pa.Table) -> str | None:
    """The first row and column in which two tables differ, or None where their values are the same."""
    if not old.schema.equals(new.schema, check_metadata=True):
        return f"columns or their metadata: expected {_schema(old)}, got {_schema(new)}"
    for number in range(min(old.num_rows, new.num_rows)):
        before, after = old.slice(number, 1).to_pylist()[0], new.slice(number, 1).to_pylist()[0]
        for column in old.column_names:
            # By their text: a number that is not one differs from itself, and the two zeros are not the same bits.
            if repr(before[column]) != repr(after[column]):
                name = f" (sample {before['id']})" if before.get("id") else ""
                values = f"expected {_short(before[column])}, got {_short(after[column])}"
                return f"row {number}{name}, column {column}: {values}"
    if old.num_rows != new.num_rows:
        return f"row {min(old.num_rows, new.num_rows)}: expected {old.num_rows} rows, got {new.num_rows}"
    return None


def changed_samples(old: pa.Table, new: pa.Table) -> tuple[str, ...]:
    """Ids of the samples whose rows differ, or that only one of the tables has, in order; none without a column id."""
    if "id" not in old.column_names or "id" not in new.column_names:
        return ()
    common = [name for name in old.column_names if name in new.column_names]
    before, after = (_rows_by_id(table.select(common)) for table in (old, new))
    return tuple(sorted(name for name in {*before, *after} if before.get(name) != after.get(name)))


def _rows_by_id(table: pa.Table) -> dict[str, str]:
    """The digest of each row's text by its id: rows of tensors are large."""
    return {
        str(row["id"]): hashlib.sha256(repr(row).encode()).hexdigest()
        for batch in table.to_batches(max_chunksize=BATCH_ROWS)
        for row in batch.to_pylist()
    }


def _schema(table: pa.Table) -> str:
    return _short({field.name: str(field.type) for field in table.schema} | {"metadata": table.schema.metadata})


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _first_byte(old: Path, new: Path) -> str:
    place = 0
    with old.open("rb") as first, new.open("rb") as second:
        while True:
            before, after = first.read(CHUNK_BYTES), second.read(CHUNK_BYTES)
            for offset, (left, right) in enumerate(zip(before, after, strict=False)):
                if left != right:
                    return f"byte {place + offset}: expected 0x{left:02x}, got 0x{right:02x}"
            if len(before) != len(after) or not before:
                return f"byte {place + min(len(before), len(after))}: one file ends"
            place += len(before)
