"""Running a release while a person watches: a bar per asset in a terminal, a line per partition elsewhere."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import Progress, TaskID

from mm_assets.operations.instance import instance_for
from mm_assets.operations.run_release import RunReport, RunRequest, run_release
from mm_assets.operations.screen import make_progress
from mm_assets.pipeline import Asset
from mm_assets.releases.spec import read_spec
from mm_assets.settings import Settings
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import Store

STARTED = "started"


@dataclass(kw_only=True)
class Timeline:
    """What a run did to each asset: seconds in all, and how many partitions ended in which state."""

    seconds: dict[str, float] = field(default_factory=dict[str, float])
    states: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])

    def add(self, asset: str, state: str, seconds: float) -> None:
        """Counts one partition that came to an end."""
        self.seconds[asset] = self.seconds.get(asset, 0.0) + seconds
        counts = self.states.setdefault(asset, {})
        counts[state] = counts.get(state, 0) + 1


def run_with_display(
    console: Console,
    store: Store,
    settings: Settings,
    request: RunRequest,
) -> tuple[RunReport, Timeline]:
    """Materializes what the request asks for and shows how far it is.

    Raises:
        ObjectMissingError: there is no such release. UsageError: there is no such stage.
    """
    num_shards = read_spec(store, request.release).num_shards
    assets = request.assets()
    timeline = Timeline()
    instance = instance_for(settings)
    try:
        with _bars(console, assets, num_shards) as bars:

            def on_event(asset: str, partition: Partition, state: str, seconds: float) -> None:
                bars.show(asset, partition, state, seconds)
                if state != STARTED:
                    timeline.add(asset, state, seconds)

            report = run_release(instance, request, on_event=on_event, settings=settings)
    finally:
        instance.dispose()
    # Dagster turns Ctrl-C into a failed step.
    for failure in report.failed:
        console.print(f"{failure.asset} {failure.partition.path}: {failure.sentence}", style="red", markup=False)
    return report, timeline


@dataclass(frozen=True, kw_only=True)
class _Bars:
    console: Console
    progress: Progress
    tasks: dict[str, TaskID]

    def show(self, asset: str, partition: Partition, state: str, seconds: float) -> None:
        """Draws one event."""
        self.progress.start_task(self.tasks[asset])
        if state == STARTED:
            return
        self.progress.advance(self.tasks[asset])
        if not self.console.is_terminal:
            self.console.print(f"{asset:<16} {partition.path:<24} {state:<8} {seconds:6.1f} s", markup=False)


@contextmanager
def _bars(console: Console, assets: list[Asset], num_shards: int) -> Generator[_Bars]:
    with make_progress(console) as progress:
        tasks = {
            asset.name: progress.add_task(
                f"{asset.stage} · {asset.name}", total=num_shards if asset.is_sharded else 1, start=False
            )
            for asset in assets
        }
        yield _Bars(console=console, progress=progress, tasks=tasks)
