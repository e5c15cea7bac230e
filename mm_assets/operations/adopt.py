"""Adoption: new code that is believed to make the same bytes is proven to, on a sample of partitions.

Partitions are picked by the hash of their name, the largest of every configuration, policy and environment included:
code can make the same bytes of one configuration and others of the next. Each is computed again under the new code,
next to what it is, and nothing is committed. If every byte is equal, a look-up under the new code finds what the old
code led to; the first difference is named instead.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mm_assets.errors import MmError, UsageError
from mm_assets.identity.canonical import Json, canonical_json, digest_file, digest_json
from mm_assets.materialize import EnvironmentOf, Workspace
from mm_assets.pipeline import Asset, asset_named
from mm_assets.scratch import scratch_folder
from mm_assets.store.action import Action, Adoption, adopted_codes, record_adoption
from mm_assets.store.commit import OutputFile
from mm_assets.store.manifest import Manifest, Output, Partition, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.refs import Ref, list_refs
from mm_assets.store.tables import ARROW_TYPE, PARQUET_TYPE

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """The first difference: partition, output, and what differs there."""

    partition: str
    output: str
    detail: str

    def __str__(self) -> str:
        return f"{self.partition}: {self.output}: {self.detail}"


@dataclass(frozen=True, kw_only=True, slots=True)
class AdoptReport:
    """What an adoption compared; ``difference`` is None where every byte was equal and the adoption is recorded."""

    asset: str
    old_code: str
    new_code: str
    partitions: tuple[str, ...]
    difference: Difference | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Candidate:
    """A partition that new code may be compared on: it differs from what it would be made into by its code alone."""

    ref: Ref
    manifest: Manifest
    action: Action


def adopt(
    workspace: Workspace,
    name: str,
    *,
    num_samples: int,
    environment_of: EnvironmentOf,
    by: str,
    on_partition: Callable[[str], None] = lambda path: None,
) -> AdoptReport:
    """Compares the present code of an asset with the code its partitions were made by.

    Args:
        workspace: The store.
        name: The asset.
        num_samples: Partitions to compute again; all if there are fewer, and more where there are more configurations,
            policies and environments.
        environment_of: Environment of launched assets.
        by: Who adopts.
        on_partition: Called with each partition before it is computed.

    Raises:
        UsageError: the asset is unknown or not remembered, or no partition was made by other code from what its
            inputs are now.
    """
    asset = asset_named(name)
    if not asset.is_remembered or num_samples < 1:
        raise UsageError(f"asset {name}: cannot be adopted: expected a computed asset and at least one sample.")
    with workspace.unchanged():
        candidates, problems = _candidates(workspace, asset, environment_of)
    if not candidates:
        skipped = f" {len(problems)} partitions were left out, the first because: {problems[0]}" if problems else ""
        raise UsageError(
            f"asset {name}: has nothing to compare: expected a partition made by other code from its present inputs. "
            f"Run a release first, or adopt the assets above it first and check them with `mm run`.{skipped}"
        )
    old_code, covered = _widest(workspace.store, candidates)
    picked = _pick(workspace, covered, num_samples)
    compared: list[str] = []
    difference: Difference | None = None
    for candidate in picked:
        path = candidate.ref.partition.path
        on_partition(path)
        compared.append(path)
        difference = _compare(workspace, candidate)
        if difference is not None:
            break
    report = AdoptReport(
        asset=name,
        old_code=old_code,
        new_code=picked[0].action.code,
        partitions=tuple(compared),
        difference=difference,
    )
    if difference is None:
        record_adoption(
            workspace.store,
            Adoption(
                schema="mm.adoption/1",
                asset=name,
                old_code=old_code,
                new_code=report.new_code,
                partitions=compared,
                by=by,
                at=datetime.now(UTC).isoformat(timespec="seconds"),
            ),
        )
    return report


def _candidates(
    workspace: Workspace, asset: Asset, environment_of: EnvironmentOf
) -> tuple[list[_Candidate], list[MmError]]:
    """The partitions that can be compared, one per action, and why others cannot."""
    found: dict[str, _Candidate] = {}
    problems: list[MmError] = []
    for ref in list_refs(workspace.store, asset.name):
        try:
            environment = environment_of(asset, ref.release) if asset.is_launched else {}
            if environment is None or ref.fingerprint in found:
                continue
            action = workspace.resolve(asset.name, ref.partition, environment)
        except MmError as error:
            # Its inputs are not what they were, so there is nothing to compare: other partitions say the same.
            problems.append(error)
            continue
        manifest = read_manifest(workspace.store, ref.manifest)
        if manifest.code != action.code and action.fingerprint_under(manifest.code) == ref.fingerprint:
            found[ref.fingerprint] = _Candidate(ref=ref, manifest=manifest, action=action)
    return list(found.values()), problems


def _widest(store: Store, candidates: list[_Candidate]) -> tuple[str, list[_Candidate]]:
    """The code whose adoption serves most candidates, and these: its own, and those of codes it was adopted for."""
    asset = candidates[0].action.asset
    covered: dict[str, list[_Candidate]] = {}
    for code in {candidate.manifest.code for candidate in candidates}:
        equal = {code, *adopted_codes(store, asset, code)}
        covered[code] = [candidate for candidate in candidates if candidate.manifest.code in equal]
    old_code = max(covered, key=lambda code: (len(covered[code]), code))
    return old_code, covered[old_code]


def _pick(workspace: Workspace, candidates: list[_Candidate], num_samples: int) -> list[_Candidate]:
    """The largest partition of every configuration, policy and environment, and others by the hash of their names."""
    largest: dict[str, _Candidate] = {}
    rest: list[_Candidate] = []
    for candidate in sorted(candidates, key=lambda entry: (-_size_bytes(entry), entry.ref.partition.path)):
        if largest.setdefault(_setting(workspace, candidate), candidate) is not candidate:
            rest.append(candidate)
    rest.sort(key=lambda entry: hashlib.sha256(entry.ref.partition.path.encode()).digest())
    return [*largest.values(), *rest][: max(num_samples, len(largest))]


def _setting(workspace: Workspace, candidate: _Candidate) -> str:
    spec = workspace.spec(candidate.ref.release)
    sections = {name: value for name, value in spec.configuration.items() if name not in ("name", "placement")}
    return digest_json([sections, spec.policy, dict(candidate.action.environment)])


def _size_bytes(candidate: _Candidate) -> int:
    return sum(output.size_bytes for output in candidate.manifest.outputs)


def _compare(workspace: Workspace, candidate: _Candidate) -> Difference | None:
    partition: Partition = candidate.ref.partition
    known = {output.name: output for output in candidate.manifest.outputs}
    with scratch_folder("adopt") as scratch:
        folder = scratch / "new"
        folder.mkdir()
        result = workspace.compute(candidate.action, partition, folder)
        made = {file.name: file for file in result.files}
        digests = {file.name: digest_file(file.path) for file in result.files}
        digests |= {output.name: output.digest for output in result.stored}
        for output in sorted({*known, *digests}):
            if output not in digests or output not in known:
                missing = "new" if output not in digests else "old"
                return Difference(
                    partition=partition.path, output=output, detail=f"the {missing} code does not make it"
                )
            if digests[output] != known[output].digest:
                detail = f"expected {known[output].digest}, got {digests[output]}"
                if output in made:
                    detail = _first_difference(workspace.store, known[output], made[output], scratch / "old")
                return Difference(partition=partition.path, output=output, detail=detail)
    # An action is remembered with its facts too: other facts for the same action would be non-determinism.
    before, after = candidate.manifest.stats, json.loads(canonical_json(dict(result.stats)))
    return (
        None if before == after else Difference(partition=partition.path, output="stats", detail=_fact(before, after))
    )


def _fact(before: Mapping[str, Json], after: Mapping[str, Json]) -> str:
    name = next(name for name in sorted({*before, *after}) if before.get(name) != after.get(name))
    return f"{name}: expected {_short(before.get(name))}, got {_short(after.get(name))}"


def _first_difference(store: Store, known: Output, made: OutputFile, folder: Path) -> str:
    """Where two files part: a row of a table, or a byte."""
    old = store.fetch(known.digest, folder)
    if known.media_type in (PARQUET_TYPE, ARROW_TYPE):
        row = first_row(_read_table(old, known.media_type), _read_table(made.path, known.media_type))
        if row is not None:
            return row
    return _first_byte(old, made.path)


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
                return f"row {number}, column {column}: expected {_short(before[column])}, got {_short(after[column])}"
    if old.num_rows != new.num_rows:
        return f"row {min(old.num_rows, new.num_rows)}: expected {old.num_rows} rows, got {new.num_rows}"
    return None


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
