"""Committing a partition: store the outputs, remember the action, write the manifest, move the ref.

Order of writes: output objects, action, manifest, ref. A process killed between any two leaves the old ref in place,
and the next attempt ends with the same digests. Looking something up is not in here: it writes nothing.
"""

import logging
import resource
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mm_assets.identity.canonical import Json
from mm_assets.store.action import Action, Maker, find_action, inputs_digest, record_action
from mm_assets.store.manifest import SCHEMA, Manifest, Output, Partition, content_digest
from mm_assets.store.objects import Store
from mm_assets.store.refs import SCHEMA as REF_SCHEMA
from mm_assets.store.refs import Ref, RefState, move_ref, read_ref

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Staged:
    """What a partition is about to become: its objects and manifest are stored, and nothing names them yet."""

    manifest: Manifest
    ref: Ref


class Attempt:
    """One attempt to commit a partition: what its ref was when it began, and what it cost since.

    Args:
        store: Where it is committed.
        action: What decides its bytes.
        partition: Which partition they are now.
        run_id: The run that is told to have moved the ref.
    """

    def __init__(self, store: Store, action: Action, partition: Partition, run_id: str | None = None) -> None:
        self._store = store
        self._action = action
        self._partition = partition
        self._run_id = run_id
        self._seen: RefState = read_ref(store, action.asset, partition)
        self._wall_s, self._cpu_s = time.monotonic(), _cpu_s()

    def commit_known(self, adopted: Sequence[Maker] = ()) -> Committed | None:
        """Commits what the action led to before; None if nothing usable is remembered.

        Raises:
            CommitConflictError: another attempt committed other bytes meanwhile.
        """
        known = find_action(self._store, self._action, adopted)
        if known is None:
            return None
        if known.fingerprint != self._action.fingerprint:
            record_action(self._store, self._action, known.outputs, known.stats)
        return self._commit(known.outputs, known.stats, cached=True)

    def commit_result(self, result: StageResult, *, is_remembered: bool = True) -> Committed:
        """Commits what was computed.

        Args:
            result: The files and facts.
            is_remembered: Whether the same action always leads to them.

        Raises:
            NonDeterminismError: the action led to other outputs before; nothing is committed.
            CommitConflictError: another attempt committed other bytes meanwhile.
        """
        outputs = self._stored(result)
        if is_remembered:
            record_action(self._store, self._action, outputs, result.stats)
        return self._commit(outputs, result.stats, cached=False)

    def stage_result(self, result: StageResult) -> Staged:
        """Stores what was computed, without recording or committing it.

        What is staged and never committed is reached by nothing, and ``mm gc`` deletes it.
        """
        return self._stage(self._stored(result), result.stats, cached=False)

    def commit_staged(self, staged: Staged) -> Committed:
        """Commits what was staged.

        Raises:
            NonDeterminismError, CommitConflictError: as ``commit_result``.
        """
        record_action(self._store, self._action, staged.manifest.outputs, staged.manifest.stats)
        return self._move(staged)

    def _stored(self, result: StageResult) -> list[Output]:
        return [*result.stored, *(store_output(self._store, file) for file in result.files)]

    def _commit(self, outputs: Sequence[Output], stats: Mapping[str, Json], *, cached: bool) -> Committed:
        return self._move(self._stage(outputs, stats, cached=cached))

    def _stage(self, outputs: Sequence[Output], stats: Mapping[str, Json], *, cached: bool) -> Staged:
        action = self._action
        manifest = Manifest(
            schema=SCHEMA,
            asset=action.asset,
            partition=self._partition,
            fingerprint=action.fingerprint,
            content=content_digest(outputs),
            code=action.code,
            params=dict(action.params),
            environment=dict(action.environment),
            inputs=list(action.inputs),
            outputs=sorted(outputs, key=lambda output: output.name),
            stats=dict(stats),
        )
        digest = self._store.put_bytes(manifest.encode())
        ref = Ref(
            schema=REF_SCHEMA,
            asset=action.asset,
            release=self._partition.release,
            shard=self._partition.shard,
            manifest=digest,
            content=manifest.content,
            fingerprint=action.fingerprint,
            inputs=inputs_digest(action.inputs),
            outputs=manifest.outputs,
            attempt=uuid.uuid4().hex,
            run_id=self._run_id,
            committed_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            cached=cached,
            wall_s=round(time.monotonic() - self._wall_s, 3),
            cpu_s=round(_cpu_s() - self._cpu_s, 3),
        )
        return Staged(manifest=manifest, ref=ref)

    def _move(self, staged: Staged) -> Committed:
        ref = staged.ref
        move_ref(self._store, ref, self._seen)
        logger.info(
            "%s %s: %s %s", ref.asset, self._partition.path, "cached" if ref.cached else "computed", ref.content
        )
        return Committed(manifest=staged.manifest, manifest_digest=ref.manifest, ref=ref, cached=ref.cached)


def store_output(store: Store, file: OutputFile) -> Output:
    """Stores a file and describes it."""
    return Output(
        name=file.name,
        digest=store.put_file(file.path),
        size_bytes=file.path.stat().st_size,
        media_type=file.media_type,
        num_rows=file.num_rows,
    )


def _cpu_s() -> float:
    """CPU seconds of this process and its ended children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
