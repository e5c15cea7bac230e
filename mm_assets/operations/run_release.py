"""``mm run``: runs the stages of a release, as ordinary runs of the same jobs that the UI shows.

A partition that is current is skipped without a run, and where all are, the definitions are not even loaded. Several
shards run at a time. A failed check ends its shard's chain; other shards go on, and the release-level chain starts
only if every shard is sound.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import dagster as dg

from mm_assets.defs.partitions import release_partitions, require_fits
from mm_assets.errors import MmError, StoreError
from mm_assets.identity.canonical import Json
from mm_assets.launchers.process import StageLauncher
from mm_assets.materialize import Workspace
from mm_assets.operations.instance import end_abandoned_runs
from mm_assets.operations.partition_run import (
    OnEvent,
    PartitionFailure,
    PartitionTask,
)
from mm_assets.operations.pool import RunPool
from mm_assets.operations.shown import shown_as_green
from mm_assets.pipeline import Asset, assets_of
from mm_assets.promotion.chain import REGISTRATION
from mm_assets.settings import Settings, read_settings
from mm_assets.store.manifest import Partition, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.refs import read_ref

logger = logging.getLogger(__name__)

#: ``done`` is what an asset ends with that is carried out rather than computed (``registration``).
STATES = ("started", "computed", "cached", "done", "failed")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRequest:
    """What to run: an open release, or some stages of it.

    ``force`` computes even what is known; ``parallel`` is how many shards run at a time, as in the settings by default.
    """

    release: str
    stages: tuple[str, ...] = ()
    force: bool = False
    parallel: int | None = None

    def assets(self) -> list[Asset]:
        """The assets asked for, in pipeline order.

        Raises:
            UsageError: there is no such stage.
        """
        return assets_of(*self.stages)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport:
    """What a run did: numbers of asset partitions, the ones that failed, and what became of the registry.

    A registration that was carried out is neither computed nor cached; one that is current counts as cached.

    ``registered`` is the outcome of the release's registration (``moved``, and ``reason`` where nothing moved); None
    if the release got no further than before it.
    """

    computed: int
    cached: int
    failed: tuple[PartitionFailure, ...]
    registered: Mapping[str, Json] | None = None


def run_release(
    instance: dg.DagsterInstance,
    request: RunRequest,
    *,
    on_event: OnEvent = lambda asset, partition, state, seconds: None,
    settings: Settings | None = None,
) -> RunReport:
    """Materializes what the request asks for on ``instance``.

    Args:
        instance: Where the runs are recorded.
        request: Which release, and how.
        on_event: Called with asset, partition, one of ``STATES`` and the seconds since it started.
        settings: Those of the environment unless given.

    Raises:
        ObjectMissingError: there is no such release. UsageError: there is no such stage.
        SettingsError: the release has more shards than this deployment.
        KeyboardInterrupt: this process was interrupted; no worker of it is left.
    """
    settings = settings or read_settings()
    workspace = Workspace(settings)
    spec = workspace.spec(request.release)
    require_fits(spec, settings)
    assets = request.assets()
    if not instance.has_dynamic_partition(str(release_partitions.name), request.release):
        instance.add_dynamic_partitions(str(release_partitions.name), [request.release])
    session = _Session(instance=instance, workspace=workspace, request=request, on_event=on_event)
    shards = [Partition(release=request.release, shard=shard) for shard in spec.shards()]
    session.advance(shards, [asset for asset in assets if asset.is_sharded])
    if not session.failed:
        session.advance([Partition(release=request.release)], [asset for asset in assets if not asset.is_sharded])
    return RunReport(
        computed=session.computed,
        cached=session.cached,
        failed=tuple(session.failed),
        registered=read_registered(workspace.store, request.release),
    )


def read_registered(store: Store, release: str) -> Mapping[str, Json] | None:
    """What the release's registration did, from the statistics of its manifest; None if there is none yet."""
    ref = read_ref(store, REGISTRATION, Partition(release=release)).ref
    return None if ref is None else dict(read_manifest(store, ref.manifest).stats)


@dataclass(kw_only=True)
class _Session:
    instance: dg.DagsterInstance
    workspace: Workspace
    request: RunRequest
    on_event: OnEvent
    computed: int = 0
    cached: int = 0
    failed: list[PartitionFailure] = field(default_factory=list[PartitionFailure])
    _environments: dict[str, Mapping[str, Json] | None] = field(default_factory=dict[str, "Mapping[str, Json] | None"])

    def advance(self, partitions: Sequence[Partition], assets: Sequence[Asset]) -> None:
        """Skips what is current from the front of each partition's chain, and runs the rest of the chains."""
        with self.workspace.unchanged():
            tasks = self._tasks(partitions, assets)
        if not tasks:
            return
        # Imported here: loading the definitions costs more than looking at a hundred partitions that are current.
        from mm_assets.defs.build import build_definitions

        pool = RunPool(
            instance=self.instance,
            definitions=build_definitions(self.workspace.settings),
            num_processes=self.request.parallel or self.workspace.settings.parallel,
            on_event=self.on_event,
        )
        try:
            for outcome in pool.run(tasks):
                self.computed += outcome.computed
                self.cached += outcome.cached
                self.failed += outcome.failed
        finally:
            # A worker that was killed left its run in progress.
            end_abandoned_runs(self.instance)

    def _tasks(self, partitions: Sequence[Partition], assets: Sequence[Asset]) -> list[PartitionTask]:
        pending = {partition: list(assets) for partition in partitions}
        for asset in assets if not self.request.force else ():
            front = [partition for partition, rest in pending.items() if rest and rest[0] is asset]
            shown = shown_as_green(self.instance, asset.name, front)
            for partition in front:
                if partition in shown and self._content(asset, partition) == shown[partition]:
                    pending[partition].pop(0)
                    self.cached += 1
                    self.on_event(asset.name, partition, "cached", 0.0)
        return [
            PartitionTask(partition=partition, assets=tuple(asset.name for asset in rest), force=self.request.force)
            for partition, rest in pending.items()
            if rest
        ]

    def _content(self, asset: Asset, partition: Partition) -> str | None:
        """Data version that the store holds for this partition as it would be made now, with a passed check."""
        environment = self._environment(asset, partition.release)
        if environment is None:
            return None
        try:
            ref = self.workspace.find_current(asset.name, partition, environment)
        except StoreError:
            raise
        except MmError:
            # An input is not ready or not sound: the run will say so, where the UI shows it.
            return None
        return None if ref is None else ref.content

    def _environment(self, asset: Asset, release: str) -> Mapping[str, Json] | None:
        if not asset.is_launched:
            return {}
        if asset.name not in self._environments:
            self._environments[asset.name] = self._launcher.environment(self.workspace, asset.name, release)
        return self._environments[asset.name]

    @cached_property
    def _launcher(self) -> StageLauncher:
        return StageLauncher(self.workspace.settings)
