"""Runs whose process was killed are ended; runs that may be alive are left alone."""

import subprocess
import sys

import dagster as dg

from mm_assets.operations.instance import PROCESS_TAG, end_abandoned_runs, this_process

#: Prints the name of a process that has ended when it is looked for.
NAME = "from mm_assets.operations.instance import this_process; print(this_process())"


def test_only_runs_of_ended_processes_of_this_host_are_ended(instance: dg.DagsterInstance) -> None:
    ended = subprocess.run([sys.executable, "-c", NAME], capture_output=True, text=True, check=True).stdout.strip()
    before_boot = ":".join([ended.split(":")[0], "another-boot", *ended.split(":")[2:]])
    elsewhere = ended.rpartition(":")[0] + ":another-host"
    processes = {"ended": ended, "before boot": before_boot, "alive": this_process(), "elsewhere": elsewhere, "ui": ""}

    @dg.job
    def work() -> None: ...

    runs = {
        name: instance.create_run_for_job(
            work, status=dg.DagsterRunStatus.STARTED, tags={PROCESS_TAG: process} if process else {}
        ).run_id
        for name, process in processes.items()
    }
    end_abandoned_runs(instance)
    statuses = {name: instance.get_run_by_id(run_id) for name, run_id in runs.items()}
    failed = {name for name, run in statuses.items() if run and run.status is dg.DagsterRunStatus.FAILURE}
    assert failed == {"ended", "before boot"}
