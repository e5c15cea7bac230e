"""The body of every asset: from the cache, in this process or in a worker, then metadata and data version.

Errors end a run with one sentence. A damaged or missing input also turns the partition's check red, in the same run,
so that the asset page names the object; the store's own trouble is retried and says nothing about the data.
"""

import logging
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)

from mm_assets.defs.metadata import CHECK, failure_metadata, materialization_metadata
from mm_assets.defs.partitions import require_known, to_partition
from mm_assets.errors import (
    CommitConflictError,
    CommitUnknownError,
    DropError,
    MmError,
    NonDeterminismError,
    ObjectCorruptError,
    ObjectMissingError,
    SpecError,
    StageError,
    StoreDeniedError,
    StoreError,
)
from mm_assets.identity.canonical import Json
from mm_assets.launchers.process import StageLauncher
from mm_assets.materialize import Workspace
from mm_assets.pipeline import ASSETS, Asset
from mm_assets.store.commit import Committed
from mm_assets.store.manifest import Partition, read_manifest
from mm_assets.store.refs import require_ref

logger = logging.getLogger(__name__)

Materialized: TypeAlias = dg.MaterializeResult[Any]

FORCE_TAG = "mm/force"
MAX_RETRIES = 2
RETRY_WAIT_S = 5
#: Trouble between us and the store: another attempt may well succeed.
RETRIED = (StoreError, CommitConflictError, CommitUnknownError)
#: What is wrong with the data itself, and therefore with the partition.
BLAMED_ON_DATA = (DropError, NonDeterminismError, ObjectCorruptError, ObjectMissingError, SpecError, StageError)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    asset: Asset
    partition: Partition
    force: bool


def materialize(context: dg.AssetExecutionContext, name: str) -> Materialized:
    """Materializes the context's partition of the asset ``name``.

    Raises:
        dg.Failure: with one sentence; never retried, because the answer would be the same.
        dg.RetryRequested: the store was in the way.
    """
    workspace: Workspace = context.resources.workspace
    task = _Task(
        asset=ASSETS[name],
        partition=to_partition(context.partition_key),
        force=context.run.tags.get(FORCE_TAG) == "true",
    )
    try:
        committed = _commit(context, workspace, task)
        metadata = materialization_metadata(workspace.store, committed)
    except MmError as error:
        _fail(context, task, error)
    return dg.MaterializeResult(data_version=dg.DataVersion(committed.manifest.content), metadata=metadata)


def _commit(context: dg.AssetExecutionContext, workspace: Workspace, task: _Task) -> Committed:
    name, partition = task.asset.name, task.partition
    require_known(workspace.spec(partition.release), partition, workspace.settings)
    environment = _environment(context, workspace, task)
    if not task.force and environment is not None:
        known = workspace.find_known(name, partition, environment=environment, run_id=context.run_id)
        if known is not None:
            return known
    if task.asset.is_launched:
        context.resources.launcher.run(context, name, partition, force=task.force)
        return _committed_by_worker(workspace, task, context.run_id)
    return workspace.run(name, partition, environment=environment or {}, run_id=context.run_id, force=task.force)


def _environment(context: dg.AssetExecutionContext, workspace: Workspace, task: _Task) -> dict[str, Json] | None:
    """What enters the fingerprint; None where only a worker that never ran yet could tell."""
    if not task.asset.is_launched:
        return {}
    launcher: StageLauncher = context.resources.launcher
    return launcher.environment(workspace, task.asset.name, task.partition.release)


def _committed_by_worker(workspace: Workspace, task: _Task, run_id: str) -> Committed:
    ref = require_ref(workspace.store, task.asset.name, task.partition)
    return Committed(
        manifest=read_manifest(workspace.store, ref.manifest),
        manifest_digest=ref.manifest,
        ref=ref,
        # A worker that found its action known leaves a ref of an earlier run where it is.
        cached=ref.cached or ref.run_id != run_id,
    )


def _fail(context: dg.AssetExecutionContext, task: _Task, error: MmError) -> NoReturn:
    sentence = str(error)
    if isinstance(error, RETRIED) and not isinstance(error, StoreDeniedError):
        if context.retry_number < MAX_RETRIES:
            context.log.warning("%s Trying again in %s s.", sentence, RETRY_WAIT_S)
            raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=RETRY_WAIT_S) from error
    elif isinstance(error, BLAMED_ON_DATA):
        context.log_event(failed_check(context.instance, task.asset.name, context.partition_key, error))  # pyright: ignore[reportArgumentType]
    raise dg.Failure(description=sentence, metadata=failure_metadata(error), allow_retries=False) from error


def failed_check(
    instance: dg.DagsterInstance, name: str, partition_key: str, error: MmError
) -> dg.AssetCheckEvaluation:
    """The check of a partition that could not even be computed; ``log_event`` files it under the current run.

    It is about the latest materialization, if there is one: Dagster ignores the outcome of a check about any other.
    """
    asset_key = dg.AssetKey(name)
    latest = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=asset_key, asset_partitions=[partition_key]), limit=1
    ).records
    target = None
    if latest:
        target = AssetCheckEvaluationTargetMaterializationData(
            storage_id=latest[0].storage_id, run_id=latest[0].run_id, timestamp=latest[0].timestamp
        )
    return dg.AssetCheckEvaluation(
        asset_key=asset_key,
        check_name=CHECK,
        passed=False,
        blocking=True,
        severity=dg.AssetCheckSeverity.ERROR,
        description=str(error),
        partition=partition_key,
        metadata=failure_metadata(error),
        target_materialization_data=target,
    )
