"""The Dagster instance of ``DAGSTER_HOME``, prepared so that the command line, the UI and the daemon share it."""

import logging
import shutil
import socket
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.execution.compute_logs import redirect_to_file
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeIOType
from dagster._core.storage.local_compute_log_manager import IO_TYPE_EXTENSION, LocalComputeLogManager
from dagster._serdes import ConfigurableClassData
from dagster._utils import touch_file

from mm_assets.settings import Settings

logger = logging.getLogger(__name__)

#: On runs inside a process of ours: which one, so that a run whose process was killed can be told from a running one.
PROCESS_TAG = "mm/process"
UNFINISHED = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
DEFAULT_CONFIG = Path(__file__).with_name("dagster.yaml")
#: Names the code location; runs of ours name the same one.
WORKSPACE = Path(__file__).with_name("workspace.yaml")


class QuietLogManager(LocalComputeLogManager):
    """Keeps a run's output where the UI finds it, without repeating it on the terminal of ``mm``."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "QuietLogManager":
        """Dagster's constructor hook."""
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Generator[CapturedLogContext]:
        """Sends the process's output to the run's log files while the run lasts."""
        paths = [
            Path(self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[kind]))
            for kind in (ComputeIOType.STDOUT, ComputeIOType.STDERR)
        ]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        with redirect_to_file(sys.stdout, str(paths[0])), redirect_to_file(sys.stderr, str(paths[1])):
            yield CapturedLogContext(log_key)
        touch_file(self.complete_artifact_path(log_key))


def prepare_home(settings: Settings) -> Path:
    """Creates ``DAGSTER_HOME`` with the embedded ``dagster.yaml`` unless it has one already; returns the folder."""
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").is_file():
        shutil.copyfile(DEFAULT_CONFIG, home / "dagster.yaml")
    return home


def instance_for(settings: Settings) -> dg.DagsterInstance:
    """The instance of ``settings.dagster_home`` for runs inside this process; close it with ``dispose``.

    Runs of processes that were killed are ended: they would count as in progress for ever.

    While such a run executes, file descriptors 1 and 2 of the process belong to the run's log. Draw progress on a
    duplicate of them (``os.dup``).
    """
    home = str(prepare_home(settings))
    plain = InstanceRef.from_dir(home)
    compute_logs = plain.compute_logs_data
    if compute_logs.class_name != LocalComputeLogManager.__name__:
        return _prepared(plain)
    quiet = {
        "module": __name__,
        "class": QuietLogManager.__name__,
        "config": compute_logs.config_dict,
    }
    return _prepared(InstanceRef.from_dir(home, overrides={"compute_logs": quiet}))


def this_process() -> str:
    """Names this process among all: process id, boot and, in it, the time it started, and the host."""
    return _name_process("self") or ""


def end_abandoned_runs(instance: dg.DagsterInstance) -> None:
    """Ends runs whose process was killed: they would count as in progress for ever.

    Only runs of this host are judged: an instance can be shared, and no host sees the processes of another one.
    """
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        process = run.tags.get(PROCESS_TAG)
        # A re-execution from the UI has the tags of its parent, and a process of its own that Dagster looks after.
        if not process or run.parent_run_id is not None or process.rpartition(":")[2] != socket.gethostname():
            continue
        if _name_process(process.partition(":")[0]) != process:
            logger.info("run %s: its process was killed; it is ended", run.run_id)
            instance.report_run_failed(run, "The process of this run was killed. Materialize its partition again.")


def _prepared(ref: InstanceRef) -> dg.DagsterInstance:
    instance = dg.DagsterInstance.from_ref(ref)
    end_abandoned_runs(instance)
    return instance


def _name_process(pid: str) -> str | None:
    try:
        stat = Path("/proc", pid, "stat").read_text(encoding="utf-8")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    # The second field is the program's name in brackets, spaces and brackets included.
    fields = stat.rpartition(")")[2].split()
    return f"{stat.split()[0]}:{boot}:{fields[19]}:{socket.gethostname()}"
