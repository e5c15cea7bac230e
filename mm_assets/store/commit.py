"""Turning a recipe into a committed partition: look the fingerprint up, else compute, store, remember, move the ref.

Order of writes: output objects, manifest, action, ref. A process killed between any two leaves the old ref in
place, and the next attempt ends with the same digests.
"""

import json
import logging
import resource
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mm_assets.errors import NonDeterminismError, ObjectCorruptError, ObjectMissingError
from mm_assets.identity.canonical import Json, canonical_json, digest_hex
from mm_assets.store.manifest import Manifest, Output, Recipe, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.refs import Ref, move_ref, read_ref

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputFile:
    """A file a stage wrote, not yet stored."""

    name: str
    path: Path
    media_type: str
    num_rows: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StageResult:
    """What a stage computed: files, objects it already stored (``stored``), and deterministic ``stats``."""

    files: tuple[OutputFile, ...]
    stats: Mapping[str, Json]
    stored: tuple[Output, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """A partition after a run: its manifest and the ref that points to it."""

    manifest: Manifest
    manifest_digest: str
    ref: Ref
    cached: bool


def action_key(fingerprint: str) -> str:
    """``actions/<fingerprint hex>.json``."""
    return f"actions/{digest_hex(fingerprint)}.json"


def find_action(store: Store, recipe: Recipe) -> str | None:
    """Digest of the manifest this recipe led to before, if that manifest and all its outputs still exist."""
    current = store.read_key(action_key(recipe.fingerprint))
    if current is None:
        return None
    digest = json.loads(current.data)["manifest"]
    try:
        manifest = read_manifest(store, digest)
    except (ObjectMissingError, ObjectCorruptError):
        return None
    if all(store.object_size(output.digest) == output.size_bytes for output in manifest.outputs):
        return digest
    return None


def materialize(
    store: Store,
    recipe: Recipe,
    compute: Callable[[], StageResult],
    *,
    run_id: str | None = None,
    force: bool = False,
) -> Committed:
    """Commits the partition of ``recipe``, calling ``compute`` only when its fingerprint is new or ``force`` is set.

    Raises:
        NonDeterminismError: a forced recompute led to another manifest; nothing is committed.
        CommitConflictError: another attempt committed other bytes meanwhile.
    """
    known = None if force else commit_known(store, recipe, run_id=run_id)
    if known is not None:
        return known
    meter = _Meter.start()
    seen = read_ref(store, recipe.asset, recipe.partition)
    result = compute()
    outputs = [*result.stored, *(_store_output(store, file) for file in result.files)]
    manifest = recipe.manifest(outputs, result.stats)
    digest = store.put_bytes(manifest.encode())
    _record_action(store, recipe, digest)
    ref = _new_ref(recipe, digest, run_id=run_id, cached=False, meter=meter)
    move_ref(store, ref, seen)
    logger.info("%s %s: computed %s", recipe.asset, recipe.partition.path, digest)
    return Committed(manifest=manifest, manifest_digest=digest, ref=ref, cached=False)


def commit_known(store: Store, recipe: Recipe, *, run_id: str | None = None) -> Committed | None:
    """Commits what this recipe led to before without computing it; None if nothing usable is remembered.

    Raises:
        CommitConflictError: another attempt committed other bytes meanwhile.
    """
    meter = _Meter.start()
    seen = read_ref(store, recipe.asset, recipe.partition)
    digest = find_action(store, recipe)
    if digest is None:
        return None
    manifest = read_manifest(store, digest)
    ref = seen.ref
    if ref is None or ref.manifest != digest:
        ref = _new_ref(recipe, digest, run_id=run_id, cached=True, meter=meter)
        move_ref(store, ref, seen)
    logger.info("%s %s: cached %s", recipe.asset, recipe.partition.path, digest)
    return Committed(manifest=manifest, manifest_digest=digest, ref=ref, cached=True)


@dataclass(frozen=True, slots=True)
class _Meter:
    """Wall and CPU seconds (children included) since it was started."""

    wall_s: float
    cpu_s: float

    @classmethod
    def start(cls) -> "_Meter":
        return cls(time.monotonic(), _cpu_s())

    def read(self) -> dict[str, float]:
        return {"wall_s": round(time.monotonic() - self.wall_s, 3), "cpu_s": round(_cpu_s() - self.cpu_s, 3)}


def _cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _new_ref(recipe: Recipe, digest: str, *, run_id: str | None, cached: bool, meter: _Meter) -> Ref:
    return Ref(
        schema="mm.ref/1",
        asset=recipe.asset,
        release=recipe.partition.release,
        shard=recipe.partition.shard,
        manifest=digest,
        fingerprint=recipe.fingerprint,
        attempt=uuid.uuid4().hex,
        run_id=run_id,
        committed_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        cached=cached,
        **meter.read(),
    )


def _store_output(store: Store, file: OutputFile) -> Output:
    size_bytes = file.path.stat().st_size
    return Output(
        name=file.name,
        digest=store.put_file(file.path),
        size_bytes=size_bytes,
        media_type=file.media_type,
        num_rows=file.num_rows,
    )


def _record_action(store: Store, recipe: Recipe, digest: str) -> None:
    key = action_key(recipe.fingerprint)
    data = canonical_json({"fingerprint": recipe.fingerprint, "manifest": digest})
    if store.create_key(key, data):
        return
    current = store.read_key(key)
    known = json.loads(current.data)["manifest"] if current else None
    if known != digest:
        raise NonDeterminismError(
            f"{recipe.asset} {recipe.partition.path}: the same fingerprint {recipe.fingerprint} gave another result: "
            f"expected {known}, got {digest}. Compare the two manifests' outputs; nothing was committed."
        )
