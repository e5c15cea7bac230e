"""Worker processes that execute runs side by side, forked once with Dagster and the definitions loaded.

A worker gets one task at a time over a pipe and answers with events and an outcome. It has a process group of its
own, so that Ctrl-C reaches the command alone, which then ends its workers once; a worker whose command was killed
is ended by the kernel's signal. What a worker opens (store, instance), it opens after the fork.
"""

import ctypes
import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from time import monotonic
from typing import Any, TypeAlias

import dagster as dg

from mm_assets.errors import MmError
from mm_assets.launchers.process import TERMINATION_TIMEOUT_S
from mm_assets.operations.partition_run import (
    OnEvent,
    PartitionOutcome,
    PartitionTask,
    failed_outcome,
    run_partition,
)
from mm_assets.store.manifest import Partition

logger = logging.getLogger(__name__)

#: A worker first ends the stage it launched, which has this long.
STOP_TIMEOUT_S = TERMINATION_TIMEOUT_S + 10
PR_SET_PDEATHSIG = 1


_Pipe: TypeAlias = "Connection[Any, Any]"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Event:
    asset: str
    state: str
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Worker:
    process: ForkProcess
    pipe: _Pipe


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPool:
    """Executes tasks with ``definitions``, recorded on ``instance``, ``num_processes`` at a time.

    With one process, or for one task, all is done in this process. ``on_event`` is always called in this process.
    """

    instance: dg.DagsterInstance
    definitions: dg.Definitions
    num_processes: int
    on_event: OnEvent

    def run(self, tasks: Sequence[PartitionTask]) -> Iterator[PartitionOutcome]:
        """Starts the tasks in their order and yields their outcomes as they come.

        Raises:
            KeyboardInterrupt: this process or a task was interrupted; no worker is left.
        """
        is_alone = min(self.num_processes, len(tasks)) <= 1
        with closing(self._run_here(tasks) if is_alone else self._run_in_workers(tasks)) as outcomes:
            for outcome in outcomes:
                if outcome.interrupted:
                    raise KeyboardInterrupt
                yield outcome

    def _run_here(self, tasks: Sequence[PartitionTask]) -> Generator[PartitionOutcome]:
        with _noted_interruptions() as was_interrupted:
            for task in tasks:
                outcome = _execute(self.instance, self.definitions, task, self.on_event)
                yield replace(outcome, interrupted=outcome.interrupted or was_interrupted())

    def _run_in_workers(self, tasks: Sequence[PartitionTask]) -> Generator[PartitionOutcome]:
        waiting = deque(tasks)
        workers: list[_Worker] = []
        busy: dict[_Pipe, tuple[_Worker, PartitionTask]] = {}
        is_done = False
        try:
            while busy or waiting:
                while waiting and len(busy) < self.num_processes:
                    idle = [worker for worker in workers if worker.pipe not in busy]
                    worker = idle[0] if idle else self._fork(workers)
                    task = waiting.popleft()
                    busy[worker.pipe] = (worker, task)
                    worker.pipe.send(task)
                for pipe in _readable(busy):
                    worker, task = busy[pipe]
                    message = _receive(worker, task)
                    if isinstance(message, _Event):
                        self.on_event(message.asset, task.partition, message.state, message.seconds)
                        continue
                    del busy[pipe]
                    if not worker.process.is_alive():
                        workers.remove(worker)
                    yield message
            is_done = True
        finally:
            _end(workers, politely=is_done)

    def _fork(self, workers: list[_Worker]) -> _Worker:
        context = multiprocessing.get_context("fork")
        ours, theirs = (Connection(end.detach()) for end in socket.socketpair())
        inherited = [ours, *(other.pipe for other in workers)]
        process = context.Process(target=self._work, args=(theirs, inherited, os.getpid()), daemon=True)
        process.start()
        # What is left of this end is the worker's alone, so its death ends the pipe.
        theirs.close()
        workers.append(_Worker(process=process, pipe=ours))
        return workers[-1]

    def _work(self, pipe: _Pipe, inherited: Sequence[_Pipe], command_pid: int) -> None:
        """A worker's life: until its pipe ends, or an interruption."""
        os.setpgid(0, 0)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        for end in inherited:
            end.close()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != command_pid:
            return

        # A broken pipe: the command was killed, and this process is about to be ended too.
        with suppress(KeyboardInterrupt, EOFError, BrokenPipeError):
            with dg.DagsterInstance.from_ref(self.instance.get_ref()) as instance:
                is_interrupted = False
                while not is_interrupted:
                    outcome = _execute(instance, self.definitions, pipe.recv(), partial(_send, pipe))
                    pipe.send(outcome)
                    is_interrupted = outcome.interrupted


@contextmanager
def _noted_interruptions() -> Generator[Callable[[], bool]]:
    """Tells whether an interruption came since.

    Dagster replaces the signal handlers while a run executes and forgets a signal that comes between the run's last
    step and its end; the interpreter notes every signal here too. Signals reach the main thread alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)

    def was_interrupted() -> bool:
        try:
            return not {signal.SIGINT, signal.SIGTERM}.isdisjoint(ours.recv(4096))
        except BlockingIOError:
            return False

    try:
        yield was_interrupted
    finally:
        signal.set_wakeup_fd(before)
        ours.close()
        theirs.close()


def _send(pipe: _Pipe, asset: str, partition: Partition, state: str, seconds: float) -> None:
    del partition  # The command knows which one this worker is at.
    with suppress(BrokenPipeError):
        pipe.send(_Event(asset=asset, state=state, seconds=seconds))


def _readable(pipes: Iterable[_Pipe]) -> list[_Pipe]:
    return [pipe for pipe in wait(list(pipes)) if isinstance(pipe, Connection)]


def _receive(worker: _Worker, task: PartitionTask) -> "_Event | PartitionOutcome":
    try:
        return worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        worker.pipe.close()
        status = worker.process.exitcode or 0
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
        return failed_outcome(task, f"{task.partition.path}: the process of its run {how}. Run the command again.")


def _end(workers: Sequence[_Worker], *, politely: bool) -> None:
    for worker in workers:
        if not politely and worker.process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(worker.process.pid, signal.SIGTERM)
        worker.pipe.close()
    deadline = monotonic() + STOP_TIMEOUT_S
    for worker in workers:
        worker.process.join(max(0.0, deadline - monotonic()))
        worker.process.kill()
        worker.process.join()


def _execute(
    instance: dg.DagsterInstance, definitions: dg.Definitions, task: PartitionTask, on_event: OnEvent
) -> PartitionOutcome:
    try:
        return run_partition(instance, definitions, task, on_event)
    except MmError as error:
        return failed_outcome(task, str(error))
    except KeyboardInterrupt:
        return PartitionOutcome(interrupted=True)
    except Exception as error:
        # Trouble of Dagster's own, as with its database, must not end the other shards.
        logger.exception("%s: its run could not be executed", task.partition.path)
        return failed_outcome(task, f"{task.partition.path}: its run could not be executed: {error}")
