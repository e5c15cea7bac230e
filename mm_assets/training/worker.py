"""The program of one training process, alone or started by torchrun. It reads files only: no store, no credentials.

``job.json`` says what to do. Progress goes to stdout as JSON lines; an error that names its cause goes to
``error.txt``. When the launching process dies, its end of stdin closes and this process ends too.
"""

import argparse
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from torch import distributed

from mm_assets.errors import MmError
from mm_assets.training.loop import OnStep
from mm_assets.training.rank import run_rank


def main() -> int:
    """Runs the job named on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", type=Path)
    parser.add_argument("--backend", help="how processes exchange tensors; alone where it is not given")
    arguments = parser.parse_args()
    threading.Thread(target=end_with_launcher, daemon=True).start()
    try:
        if arguments.backend:
            distributed.init_process_group(arguments.backend)
        _run(arguments.job)
        if arguments.backend:
            # A rank that leaves first would close connections under the others.
            distributed.barrier()
    except MmError as error:
        (arguments.job.parent / "error.txt").write_text(str(error), encoding="utf-8")
        return 1
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
    return 0


def _run(path: Path) -> None:
    job: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    run_rank(job, path.parent / "checkpoints", _reporter(job["log_every"]))


def _reporter(log_every: int) -> OnStep:
    is_first = not distributed.is_initialized() or distributed.get_rank() == 0

    def report(done: int, num_steps: int, loss: float) -> None:
        if is_first and (done % log_every == 0 or done == num_steps):
            sys.stdout.write(json.dumps({"step": done, "num_steps": num_steps, "loss": loss}) + "\n")
            sys.stdout.flush()

    return report


def end_with_launcher() -> None:
    """Blocks until the other end of stdin is closed, then ends this process whatever it is doing."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of libraries that outlive the interpreter can abort a process that has done its work.
    os._exit(status)
