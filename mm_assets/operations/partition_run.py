"""One run of one partition: made so that the UI can execute it again, executed in this process, followed as it goes.

``execute_in_process`` makes runs that belong to no code location, and the UI refuses to execute those again. A run
made here names the code location of ``workspace.yaml``, so both kinds of re-execution find the job.
"""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from uuid import uuid4

import dagster as dg
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.api import execute_run_iterator
from dagster._core.execution.execute_in_process import merge_run_tags
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.tags import MAX_RETRIES_TAG
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from mm_assets.defs.execution import FORCE_TAG
from mm_assets.defs.jobs import job_for
from mm_assets.defs.metadata import CHECK, causes_of, failure_causes, failure_sentence
from mm_assets.defs.partitions import to_key
from mm_assets.operations.instance import PROCESS_TAG, this_process
from mm_assets.pipeline import ASSETS
from mm_assets.store.manifest import Partition

logger = logging.getLogger(__name__)

OnEvent = Callable[[str, Partition, str, float], None]

#: As in workspace.yaml, which ``mm ui`` and a deployment load.
LOCATION = "mm_assets"
MODULE = "mm_assets.definitions"
REPOSITORY = "__repository__"
#: The console is the command's own; the run's log in the UI keeps everything.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionTask:
    """The rest of one partition's chain: the assets to materialize, in pipeline order, in one run."""

    partition: Partition
    assets: tuple[str, ...]
    force: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionFailure:
    """A partition that could not be materialized or whose check failed, with the sentence that says why."""

    asset: str
    partition: Partition
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionOutcome:
    """What one run did: numbers of asset partitions, those that failed, and whether it was interrupted."""

    computed: int = 0
    cached: int = 0
    failed: tuple[PartitionFailure, ...] = ()
    interrupted: bool = False


def run_partition(
    instance: dg.DagsterInstance, definitions: dg.Definitions, task: PartitionTask, on_event: OnEvent
) -> PartitionOutcome:
    """Makes and executes the run of ``task`` in this process; what goes wrong in it is in the outcome."""
    job = definitions.resolve_job_def(job_for(ASSETS[task.assets[0]].is_sharded))
    run = _create_run(instance, job, task)
    watcher = _Watcher(task, on_event)
    instance.add_event_listener(run.run_id, watcher)
    for _ in execute_run_iterator(InMemoryJob(job), run, instance):
        pass
    return watcher.outcome(run.run_id)


def failed_outcome(task: PartitionTask, sentence: str) -> PartitionOutcome:
    """The outcome of a task that ended outside of its steps; its first asset is blamed."""
    failure = PartitionFailure(asset=task.assets[0], partition=task.partition, sentence=sentence)
    return PartitionOutcome(failed=(failure,))


def _create_run(instance: dg.DagsterInstance, job: dg.JobDefinition, task: PartitionTask) -> dg.DagsterRun:
    selection = [dg.AssetKey(name) for name in task.assets]
    # A person or this command decides what happens after a failure, not the daemon's retries.
    tags = {PROCESS_TAG: this_process(), MAX_RETRIES_TAG: "0"} | ({FORCE_TAG: "true"} if task.force else {})
    code_origin = RepositoryPythonOrigin(sys.executable, ModuleCodePointer(MODULE, "defs"))
    return instance.create_run_for_job(
        job_def=job,
        run_id=str(uuid4()),
        run_config=QUIET,
        tags=merge_run_tags(job, to_key(task.partition), tags, selection, instance, QUIET),
        asset_selection=frozenset(selection),
        remote_job_origin=_remote_origin(job.name),
        job_code_origin=JobPythonOrigin(job.name, code_origin),
    )


def _remote_origin(job_name: str) -> RemoteJobOrigin:
    location = ManagedGrpcPythonEnvCodeLocationOrigin(
        loadable_target_origin=LoadableTargetOrigin(executable_path=sys.executable, module_name=MODULE),
        location_name=LOCATION,
    )
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, REPOSITORY), job_name)


class _Watcher:
    """Follows the events of one run as they are written."""

    def __init__(self, task: PartitionTask, on_event: OnEvent) -> None:
        self._task = task
        self._on_event = on_event
        self._computed = 0
        self._cached = 0
        self._failed: list[PartitionFailure] = []
        self._interrupted = False
        self._succeeded = False
        self._ending = ""
        self._started: dict[str, float] = {}

    def __call__(self, entry: dg.EventLogEntry) -> None:
        """Takes one event; Dagster's listener hook."""
        event = entry.dagster_event
        if event is None:
            return
        match event.event_type:
            case dg.DagsterEventType.STEP_START if event.step_key in self._task.assets:
                self._started.setdefault(event.step_key, monotonic())
                self._on_event(event.step_key, self._task.partition, "started", 0.0)
            case dg.DagsterEventType.ASSET_MATERIALIZATION:
                self._materialized(event)
            case dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                self._checked(event)
            case dg.DagsterEventType.STEP_FAILURE:
                self._broke(event)
            case dg.DagsterEventType.PIPELINE_FAILURE | dg.DagsterEventType.PIPELINE_CANCELED:
                self._ended(event)
            case dg.DagsterEventType.PIPELINE_SUCCESS:
                self._succeeded = True
            case _:
                pass

    def outcome(self, run_id: str) -> PartitionOutcome:
        """What the run did, once it is over."""
        if not self._succeeded and not self._failed and not self._interrupted:
            sentence = f"run {run_id} ended outside of its steps: {self._ending or 'no reason given'}"
            self._fail(self._task.assets[0], sentence)
        return PartitionOutcome(
            computed=self._computed, cached=self._cached, failed=tuple(self._failed), interrupted=self._interrupted
        )

    def _materialized(self, event: dg.DagsterEvent) -> None:
        materialization = event.step_materialization_data.materialization
        name = materialization.asset_key.to_user_string()
        is_cached = bool(materialization.metadata["cached"].value)
        if not ASSETS[name].is_remembered:
            # It was carried out, not computed: what it did is told by itself.
            self._on_event(name, self._task.partition, "done", self._seconds(name))
            return
        if is_cached:
            self._cached += 1
        else:
            self._computed += 1
        self._on_event(name, self._task.partition, "cached" if is_cached else "computed", self._seconds(name))

    def _checked(self, event: dg.DagsterEvent) -> None:
        evaluation = event.asset_check_evaluation_data
        if not evaluation.passed:
            self._fail(evaluation.asset_key.to_user_string(), evaluation.description or "its check failed.")

    def _broke(self, event: dg.DagsterEvent) -> None:
        causes = {error.cls_name for error in failure_causes(event)}
        self._interrupted |= DagsterExecutionInterruptedError.__name__ in causes
        # A check's step is named after its asset and blames it, unless the asset's own sentence is there already.
        name = str(event.step_key).removesuffix(f"_{CHECK}")
        if not any(failure.asset == name for failure in self._failed):
            self._fail(name, failure_sentence(event))

    def _ended(self, event: dg.DagsterEvent) -> None:
        # An interruption between two steps is told here alone.
        error = getattr(event.event_specific_data, "error", None)
        self._ending = (error.message if error else event.message or "").strip()
        names = (DagsterExecutionInterruptedError.__name__, KeyboardInterrupt.__name__)
        self._interrupted |= event.event_type == dg.DagsterEventType.PIPELINE_CANCELED
        self._interrupted |= error is not None and any(cause.cls_name in names for cause in causes_of(error))

    def _fail(self, name: str, sentence: str) -> None:
        self._failed.append(PartitionFailure(asset=name, partition=self._task.partition, sentence=sentence))
        self._on_event(name, self._task.partition, "failed", self._seconds(name))

    def _seconds(self, name: str) -> float:
        return monotonic() - self._started.get(name, monotonic())
