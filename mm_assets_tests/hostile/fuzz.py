"""Seeded fuzz of every parser and decoder.

Execution ``n`` of a seed is always the same input. It must end in a result or in one of our errors, whose sentence is
one line without an address, within ``MAX_CPU_S`` and ``MAX_GROWN_BYTES``. Inputs that fail are written to the folder.

    python -m mm_assets_tests.hostile.fuzz --executions 10000 --seed 1 --folder FOLDER [--only N]
"""

import argparse
import os
import re
import resource
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from mm_assets.errors import MmError
from mm_assets.modalities.reasons import BlobRejectedError
from mm_assets_tests.hostile.targets import TARGETS, Target

MAX_CPU_S = 10
#: What a process may take beside the libraries it has loaded.
MAX_GROWN_BYTES = 2 << 30
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")
PROGRESS_BYTES = 8


class FuzzError(Exception):
    """An execution ended in another way than it may."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """An input that failed, and how."""

    path: Path
    said: str


def make_input(seed: str, number: int) -> tuple[Target, bytes]:
    """The target of an execution, and its input."""
    random = Random(f"{seed}-{number}")
    target = random.choices(TARGETS, [target.share for target in TARGETS])[0]
    data = random.choice(target.seeds)
    return target, data if random.random() < 0.02 else target.mutate(random, data, target.seeds)


def execute(target: Target, data: bytes) -> None:
    """Runs one input.

    Raises:
        FuzzError: it ended in another exception, took too long, or has a sentence that nobody could read.
    """
    signal.setitimer(signal.ITIMER_VIRTUAL, MAX_CPU_S)
    try:
        said = list(target.read(data))
    except (MmError, BlobRejectedError) as error:
        said = [error.detail if isinstance(error, BlobRejectedError) else str(error)]
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    for sentence in said:
        if "\n" in sentence or ADDRESS.search(sentence):
            raise FuzzError(f"not one sentence: {sentence!r}")


def run(seed: str, numbers: Sequence[int], folder: Path, progress: Callable[[int], None] = lambda _: None) -> int:
    """Executes inputs; writes those that fail to ``folder`` and returns their number."""
    num_failed = 0
    for number in numbers:
        progress(number)
        target, data = make_input(seed, number)
        try:
            execute(target, data)
        except Exception:  # Anything at all is what is looked for.
            num_failed += 1
            write_failure(folder, seed, number, traceback.format_exc())
    return num_failed


def write_failure(folder: Path, seed: str, number: int, said: str) -> None:
    """Keeps an input that failed beside what it did."""
    target, data = make_input(seed, number)
    stem = folder / f"{target.name}-{seed}-{number}"
    stem.with_suffix(".bin").write_bytes(data)
    stem.with_suffix(".txt").write_text(said, encoding="utf-8", errors="backslashreplace")


def run_processes(seed: str, executions: int, folder: Path, *, num_processes: int, timeout_s: float) -> list[Failure]:
    """Executes ``0 .. executions - 1`` in processes of their own; one that dies is a failure and is started again."""
    folder.mkdir(parents=True, exist_ok=True)
    running: dict[int, subprocess.Popen[bytes]] = {}

    def start(worker: int, first: int) -> None:
        numbers = f"{first}:{executions}:{num_processes}"
        command = [sys.executable, "-m", "mm_assets_tests.hostile.fuzz", "--seed", seed, "--folder", str(folder)]
        log = (folder / f"worker-{worker}.log").open("ab")
        with log:
            running[worker] = subprocess.Popen(
                [*command, "--numbers", numbers, "--worker", str(worker)],
                stdout=log,
                stderr=log,
                # An arena of malloc for every thread that a library starts takes 64 MiB of addresses each.
                env={**os.environ, "MALLOC_ARENA_MAX": "2"},
            )

    for worker in range(num_processes):
        start(worker, worker)
    while running:
        for worker, process in list(running.items()):
            try:
                status = process.wait(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
            del running[worker]
            if status not in (0, 1):
                number = int((folder / f"worker-{worker}.at").read_text() or worker)
                write_failure(folder, seed, number, f"the process ended with status {status}")
                if number + num_processes < executions:
                    start(worker, number + num_processes)
    return [Failure(path=path, said=path.with_suffix(".txt").read_text()) for path in sorted(folder.glob("*.bin"))]


def _end(*_: object) -> None:
    raise FuzzError(f"took more than {MAX_CPU_S} s of CPU")


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MAX_GROWN_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> int:
    """Executes a share of the inputs in this process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", default="1")
    parser.add_argument("--numbers", required=True, help="FIRST:END:STEP")
    parser.add_argument("--worker", default="0")
    parser.add_argument("--folder", type=Path, required=True)
    args = parser.parse_args()
    signal.signal(signal.SIGVTALRM, _end)
    warnings.simplefilter("ignore")
    _limit_memory()
    numbers = range(*map(int, args.numbers.split(":")))
    with (args.folder / f"worker-{args.worker}.at").open("wb", buffering=0) as at:
        num_failed = run(
            args.seed, numbers, args.folder, lambda number: bool(os.pwrite(at.fileno(), b"%8d" % number, 0)) or None
        )
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(main())
