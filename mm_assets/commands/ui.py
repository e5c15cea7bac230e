"""``mm ui``: ``dagster dev`` on this machine, with everything it starts ended when it ends.

``dagster dev`` is a tree of processes that does not always follow a SIGTERM to its root, so it gets a process group of
its own; workers of its runs are found by a token in their environment. The embedded store is stopped too if this
command started it.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import FrameType

from rich.console import Console

from mm_assets.errors import UsageError
from mm_assets.operations.instance import WORKSPACE, instance_for
from mm_assets.operations.screen import Outcome
from mm_assets.settings import Settings, read_settings, worker_environment
from mm_assets.store import embedded
from mm_assets.store.objects import open_store

HOST = "127.0.0.1"
STOP_TIMEOUT_S = 10
#: Marks what this command started, through any number of processes and groups in between.
TOKEN = "MM_UI_TOKEN"
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _EndedError(Exception):
    """A signal asked for the end."""


def ui(args: argparse.Namespace, console: Console) -> Outcome:
    """Serves the UI until a signal ends it, which is the normal end; false if Dagster ended by itself.

    Raises:
        UsageError: the port is taken.
    """
    settings = read_settings()
    _require_free(args.port)
    started_store = settings.is_embedded and embedded.running(settings.home) is None
    for number in ENDING_SIGNALS:
        signal.signal(number, _end)
    process: subprocess.Popen[bytes] | None = None
    token = uuid.uuid4().hex
    try:
        open_store(settings)
        process = _start(settings, args.port, token)
        console.print(f"The UI opens at http://{HOST}:{args.port} in some seconds; Ctrl-C ends it.", markup=False)
        status = process.wait()
    except _EndedError:
        status = 0
    finally:
        for number in ENDING_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if process is not None:
            _end_all(process, token)
        if started_store:
            embedded.stop(settings.home)
    return Outcome(result={"status": status}, ok=status == 0)


def _start(settings: Settings, port: int, token: str) -> subprocess.Popen[bytes]:
    # Opened once here: its processes would create the same database at the same moment.
    instance_for(settings).dispose()
    program = Path(sys.executable).with_name("dagster")
    command = [str(program), "dev", "-w", str(WORKSPACE), "-h", HOST, "-p", str(port)]
    environment = worker_environment(settings) | {"DAGSTER_HOME": str(settings.dagster_home), TOKEN: token}
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)


def _end(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise _EndedError


def _end_all(process: subprocess.Popen[bytes], token: str) -> None:
    """Ends Dagster's group and every worker below it: politely, and after ``STOP_TIMEOUT_S`` for good."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    _signal_group(process.pid, signal.SIGINT)
    while time.monotonic() < deadline and (process.poll() is None or _descendants(token)):
        time.sleep(0.1)
    _signal_group(process.pid, signal.SIGKILL)
    # Workers of a run have groups of their own. One may start another while it is being ended, so look again.
    while descendants := _descendants(token):
        for pid in descendants:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _descendants(token: str) -> list[int]:
    """Processes that inherited ``token`` in their environment, however they were started. Empty without ``/proc``."""
    marker = f"{TOKEN}={token}".encode()
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # The environment of a zombie reads as empty.
            if marker in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"mm ui: port {port} of {HOST} cannot be used: {error}. Choose another one with --port."
            ) from error
