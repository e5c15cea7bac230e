"""Starting, watching and ending the processes of one training run on this machine.

Ranks get no credentials: they read files, and the caller looks after what they write.
"""

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from mm_assets.errors import StageError
from mm_assets.settings import clean_environment

logger = logging.getLogger(__name__)

POLL_S = 0.2
STOP_TIMEOUT_S = 10
ERROR_LINES = 15
CPU_BACKEND = "gloo"
#: What was consumed is gathered on the CPU, gradients where they are.
GPU_BACKEND = "cpu:gloo,cuda:nccl"


def run_processes(job: Path, *, world_size: int, accelerators: int = 0, on_poll: Callable[[], None]) -> None:
    """Runs ``job`` on ``world_size`` processes; more than one are started by torchrun on the loopback interface.

    Args:
        job: ``job.json``; what the processes write is put beside it.
        world_size: Processes.
        accelerators: As many as there are processes, or none.
        on_poll: Called several times a second while they run, and once after they ended.

    Raises:
        StageError: a process ended with an error or was killed; all others are ended too.
    """
    with (job.parent / "stderr.txt").open("wb") as errors:
        process = subprocess.Popen(
            _command(job, world_size, GPU_BACKEND if accelerators else CPU_BACKEND),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            # Gloo otherwise picks the interface of the host's name, which need not resolve.
            env=clean_environment() | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        )
        assert process.stdout is not None
        reader = threading.Thread(target=_log_progress, args=(process.stdout,), daemon=True)
        reader.start()
        try:
            while not _ended(process):
                on_poll()
        finally:
            _end(process)
            reader.join()
    on_poll()
    if process.returncode != 0:
        raise StageError(_explain(job.parent, process.returncode))


def _command(job: Path, world_size: int, backend: str) -> list[str]:
    worker = ["-m", "mm_assets.training.worker", str(job)]
    if world_size == 1:
        return [sys.executable, *worker]
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1",
        "--nproc-per-node", str(world_size), "--max-restarts", "0", *worker, "--backend", backend,
    ]  # fmt: skip


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(POLL_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """Closing stdin ends every rank; the agent follows its ranks."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _log_progress(stdout: IO[bytes]) -> None:
    for line in stdout:
        try:
            progress = json.loads(line)
            message = "model: step %d of %d, loss %.3f", progress["step"], progress["num_steps"], progress["loss"]
        except (ValueError, KeyError, TypeError):
            logger.info("model: %s", line.decode(errors="replace").rstrip())
            continue
        logger.info(*message)


def _explain(folder: Path, status: int) -> str:
    known = folder / "error.txt"
    if known.is_file():
        return known.read_text(encoding="utf-8")
    lines = (folder / "stderr.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    return (
        f"training: a process ended with status {status}. Run the partition again: it goes on from its last "
        "checkpoint. Last lines of its output: " + " | ".join(lines[-ERROR_LINES:])
    )
