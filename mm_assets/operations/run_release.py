"""``mm run``: a release from here to there, as ordinary runs of the same jobs that the UI shows.

A partition that is current is skipped without a run. A failed gate ends its shard's chain; other shards go on, and
the release-level chain starts only if every shard is sound.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from uuid import uuid4

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from mm_assets.defs.build import build_definitions
from mm_assets.defs.execution import FORCE_TAG
from mm_assets.defs.jobs import job_for
from mm_assets.defs.metadata import GATE, causes_of, failure_causes, failure_sentence
from mm_assets.defs.partitions import release_partitions, require_fits, to_key
from mm_assets.defs.resources import Workspace
from mm_assets.errors import MmError, StoreError, UsageError
from mm_assets.launchers.process import StageLauncher
from mm_assets.operations.instance import PROCESS_TAG, this_process
from mm_assets.pipeline import ASSETS, Asset, find_cached, find_validation
from mm_assets.settings import Settings, read_settings
from mm_assets.store.manifest import Partition

logger = logging.getLogger(__name__)

OnEvent = Callable[[str, Partition, str, float], None]
#: The console is the command's own; the run's log in the UI keeps everything.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
STATES = ("started", "computed", "cached", "failed")


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionFailure:
    """A partition that could not be materialized or whose gate failed, with the sentence that says why."""

    asset: str
    partition: Partition
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport:
    """What a run did: numbers of asset partitions, and the ones that failed."""

    computed: int
    cached: int
    failed: tuple[PartitionFailure, ...]


def run_release(
    instance: dg.DagsterInstance,
    release: str,
    *,
    stage: str | None = None,
    force: bool = False,
    on_event: OnEvent = lambda asset, partition, state, seconds: None,
    settings: Settings | None = None,
) -> RunReport:
    """Materializes a release, or one stage of it, on ``instance``.

    Args:
        instance: Where the runs are recorded.
        release: An open release.
        stage: A stage of the pipeline; all of them by default.
        force: Compute even what is known.
        on_event: Called with asset, partition, one of ``STATES`` and the seconds since it started.
        settings: Those of the environment unless given.

    Raises:
        ObjectMissingError: there is no such release. UsageError: there is no such stage.
        SettingsError: the release has more shards than this deployment.
    """
    settings = settings or read_settings()
    workspace = Workspace(settings)
    spec = workspace.spec(release)
    require_fits(spec, settings)
    names = _assets_of(stage)
    instance.add_dynamic_partitions(str(release_partitions.name), [release])
    session = _Session(
        instance=instance,
        workspace=workspace,
        launcher=StageLauncher(settings),
        definitions=build_definitions(settings),
        force=force,
        on_event=on_event,
    )
    for shard in spec.shards():
        session.advance(Partition(release=release, shard=shard), [asset for asset in names if asset.is_sharded])
    if not session.failed:
        session.advance(Partition(release=release), [asset for asset in names if not asset.is_sharded])
    return RunReport(computed=session.computed, cached=session.cached, failed=tuple(session.failed))


def _assets_of(stage: str | None) -> list[Asset]:
    assets = [asset for asset in ASSETS.values() if stage in (None, asset.stage)]
    if not assets:
        stages = ", ".join(dict.fromkeys(asset.stage for asset in ASSETS.values()))
        raise UsageError(f"stage {stage}: is unknown: expected one of {stages}.")
    return assets


@dataclass(kw_only=True)
class _Session:
    instance: dg.DagsterInstance
    workspace: Workspace
    launcher: StageLauncher
    definitions: dg.Definitions
    force: bool
    on_event: OnEvent
    computed: int = 0
    cached: int = 0
    failed: list[PartitionFailure] = field(default_factory=list[PartitionFailure])

    def advance(self, partition: Partition, assets: list[Asset]) -> None:
        """Skips what is current from the front, and runs the rest of the chain."""
        pending = list(assets)
        while pending and not self.force and self._is_current(pending[0], partition):
            self.cached += 1
            self.on_event(pending.pop(0).name, partition, "cached", 0.0)
        if pending:
            self._run(partition, pending)

    def _is_current(self, asset: Asset, partition: Partition) -> bool:
        """Whether store and UI both hold this partition as its recipe says, with a passed gate."""
        store, settings = self.workspace.store, self.workspace.settings
        environment = self.launcher.environment(store, asset.name, partition.release) if asset.is_launched else {}
        if environment is None:
            return False
        try:
            committed = find_cached(store, asset.name, partition, environment=environment)
        except StoreError:
            raise
        except MmError:
            # An input is not ready or not sound: the run will say so, where the UI shows it.
            return False
        if committed is None:
            return False
        validation = find_validation(store, settings, asset.name, partition)
        if validation is None or not validation.passed:
            return False
        return self._shown_as(asset, partition) == committed.manifest_digest

    def _shown_as(self, asset: Asset, partition: Partition) -> str | None:
        """Data version of the partition in the UI, or None if it is missing there or its gate is not green."""
        key, asset_key = to_key(partition), dg.AssetKey(asset.name)
        check_key = dg.AssetCheckKey(asset_key, GATE)
        records = self.instance.event_log_storage.get_latest_asset_check_execution_by_key(
            [check_key], partition_filter=PartitionKeyFilter(key=key)
        )
        record = records.get(check_key)
        if record is None or record.status != AssetCheckExecutionRecordStatus.SUCCEEDED:
            return None
        latest = self.instance.get_latest_data_version_record(asset_key, partition_key=key)
        materialization = latest.asset_materialization if latest else None
        return (materialization.tags or {}).get("dagster/data_version") if materialization else None

    def _run(self, partition: Partition, assets: list[Asset]) -> None:
        job = self.definitions.resolve_job_def(job_for(assets[0].is_sharded))
        run_id = str(uuid4())
        watcher = _Watcher(partition, {asset.name for asset in assets}, self.on_event)
        self.instance.add_event_listener(run_id, watcher)
        result = job.execute_in_process(
            run_config=QUIET,
            instance=self.instance,
            partition_key=to_key(partition),
            asset_selection=[dg.AssetKey(asset.name) for asset in assets],
            run_id=run_id,
            tags={PROCESS_TAG: this_process()} | ({FORCE_TAG: "true"} if self.force else {}),
            raise_on_error=False,
        )
        self.computed += watcher.computed
        self.cached += watcher.cached
        self.failed += watcher.failed
        if watcher.interrupted:
            # Dagster ends the run and swallows the interruption; the shards after it must not start.
            raise KeyboardInterrupt
        if not result.success and not watcher.failed:
            sentence = f"run {run_id} ended outside of its steps: {watcher.ending or 'no reason given'}"
            self.failed.append(PartitionFailure(asset=assets[0].name, partition=partition, sentence=sentence))


class _Watcher:
    """Follows the events of one run as they are written."""

    def __init__(self, partition: Partition, names: set[str], on_event: OnEvent) -> None:
        self.computed = 0
        self.cached = 0
        self.failed: list[PartitionFailure] = []
        self.interrupted = False
        self.ending = ""
        self._partition = partition
        self._names = names
        self._on_event = on_event
        self._started: dict[str, float] = {}

    def __call__(self, entry: dg.EventLogEntry) -> None:
        """Takes one event; Dagster's listener hook."""
        event = entry.dagster_event
        if event is None:
            return
        match event.event_type:
            case dg.DagsterEventType.STEP_START if event.step_key in self._names:
                self._started.setdefault(event.step_key, monotonic())
                self._on_event(event.step_key, self._partition, "started", 0.0)
            case dg.DagsterEventType.ASSET_MATERIALIZATION:
                self._materialized(event)
            case dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                self._checked(event)
            case dg.DagsterEventType.STEP_FAILURE:
                self._broke(event)
            case dg.DagsterEventType.PIPELINE_FAILURE | dg.DagsterEventType.PIPELINE_CANCELED:
                self._ended(event)
            case _:
                pass

    def _materialized(self, event: dg.DagsterEvent) -> None:
        materialization = event.step_materialization_data.materialization
        name = materialization.asset_key.to_user_string()
        is_cached = bool(materialization.metadata["cached"].value)
        if is_cached:
            self.cached += 1
        else:
            self.computed += 1
        self._on_event(name, self._partition, "cached" if is_cached else "computed", self._seconds(name))

    def _checked(self, event: dg.DagsterEvent) -> None:
        evaluation = event.asset_check_evaluation_data
        if not evaluation.passed:
            self._fail(evaluation.asset_key.to_user_string(), evaluation.description or "its gate failed.")

    def _broke(self, event: dg.DagsterEvent) -> None:
        causes = {error.cls_name for error in failure_causes(event)}
        self.interrupted |= DagsterExecutionInterruptedError.__name__ in causes
        # A gate's step is named after its asset and blames it, unless the asset's own sentence is there already.
        name = str(event.step_key).removesuffix(f"_{GATE}")
        if not any(failure.asset == name for failure in self.failed):
            self._fail(name, failure_sentence(event))

    def _ended(self, event: dg.DagsterEvent) -> None:
        # An interruption between two steps is told here alone.
        error = getattr(event.event_specific_data, "error", None)
        self.ending = (error.message if error else event.message or "").strip()
        names = (DagsterExecutionInterruptedError.__name__, KeyboardInterrupt.__name__)
        self.interrupted |= event.event_type == dg.DagsterEventType.PIPELINE_CANCELED
        self.interrupted |= error is not None and any(cause.cls_name in names for cause in causes_of(error))

    def _fail(self, name: str, sentence: str) -> None:
        self.failed.append(PartitionFailure(asset=name, partition=self._partition, sentence=sentence))
        self._on_event(name, self._partition, "failed", self._seconds(name))

    def _seconds(self, name: str) -> float:
        return monotonic() - self._started.get(name, monotonic())
