"""``mm ui``: ``dagster dev`` on this machine, with everything it starts ended when it ends.

``dagster dev`` is a tree of processes that does not always follow a SIGTERM to its root, so it gets a process group
of its own and the whole group is ended. The embedded store is stopped too if this command started it.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from rich.console import Console

from mm_assets.defs.instance import prepare_home
from mm_assets.errors import UsageError
from mm_assets.screen import Outcome
from mm_assets.settings import Settings, read_settings, worker_environment
from mm_assets.store import embedded
from mm_assets.store.objects import open_store

HOST = "127.0.0.1"
STOP_TIMEOUT_S = 10
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
    try:
        open_store(settings)
        process = _start(settings, args.port)
        console.print(f"The UI opens at http://{HOST}:{args.port} in some seconds; Ctrl-C ends it.", markup=False)
        status = process.wait()
    except _EndedError:
        status = 0
    finally:
        for number in ENDING_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if process is not None:
            _end_group(process)
        if started_store:
            embedded.stop(settings.home)
    return Outcome(result={"status": status}, ok=status == 0)


def _start(settings: Settings, port: int) -> subprocess.Popen[bytes]:
    home = prepare_home(settings)
    program = Path(sys.executable).with_name("dagster")
    command = [str(program), "dev", "-m", "mm_assets.definitions", "-h", HOST, "-p", str(port)]
    environment = worker_environment(settings) | {"DAGSTER_HOME": str(home)}
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)


def _end(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise _EndedError


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends the whole process group: politely, and after ``STOP_TIMEOUT_S`` for good."""
    group = process.pid
    deadline = time.monotonic() + STOP_TIMEOUT_S
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGINT)
        while time.monotonic() < deadline:
            process.poll()
            os.killpg(group, 0)
            time.sleep(0.1)
        os.killpg(group, signal.SIGKILL)
    process.wait()


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"mm ui: port {port} of {HOST} cannot be used: {error}. Choose another one with --port."
            ) from error
