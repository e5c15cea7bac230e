"""Interrupted and killed runs: an interrupted command ends, and the death of a worker is one failed partition."""

import os
import signal
from pathlib import Path

import dagster as dg
import pytest

from mm_assets.operations.run_release import RunRequest, run_release
from mm_assets.settings import Settings
from mm_assets.store.manifest import Partition

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def interrupts_raise() -> None:
    """As in a command that begins: a run that was interrupted here may have left Dagster's handler behind."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("parallel", [1, 2])
def test_an_interrupt_right_after_a_step_ends_the_command(
    release: str, moto_settings: Settings, quiet_instance: dg.DagsterInstance, parallel: int
) -> None:
    def on_event(asset: str, partition: Partition, state: str, seconds: float) -> None:
        if state == "computed":
            os.kill(os.getpid(), signal.SIGINT)

    request = RunRequest(release=release, stages=("snapshot",), parallel=parallel)
    with pytest.raises(KeyboardInterrupt):
        run_release(quiet_instance, request, on_event=on_event, settings=moto_settings)
    assert not quiet_instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    assert not _children()


def test_a_worker_that_is_killed_fails_its_shard_and_ends_its_run(
    release: str, moto_settings: Settings, quiet_instance: dg.DagsterInstance
) -> None:
    killed: list[Partition] = []

    def on_event(asset: str, partition: Partition, state: str, seconds: float) -> None:
        if state == "started" and not killed:
            run = next(
                iter(quiet_instance.get_runs(dg.RunsFilter(tags={"dagster/partition/shard": partition.shard or ""})))
            )
            os.kill(int(run.tags["mm/process"].partition(":")[0]), signal.SIGKILL)
            killed.append(partition)

    request = RunRequest(release=release, stages=("snapshot",), parallel=2)
    report = run_release(quiet_instance, request, on_event=on_event, settings=moto_settings)
    (failure,) = report.failed
    assert (failure.partition, report.computed) == (killed[0], 1)
    assert "killed by SIGKILL" in failure.sentence
    assert not quiet_instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    assert run_release(quiet_instance, request, settings=moto_settings).failed == ()


def _children() -> list[str]:
    """Process ids of this process's children that are called as it is: forked, not started as a program."""
    own = Path("/proc/self/cmdline").read_bytes()
    pids = Path(f"/proc/self/task/{os.getpid()}/children").read_text("utf-8").split()
    return [pid for pid in pids if Path("/proc", pid, "cmdline").read_bytes() == own]
