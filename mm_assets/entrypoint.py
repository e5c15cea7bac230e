"""The one program every worker runs: materialize one partition of a launched asset and report.

Under Dagster Pipes it sends its progress and, if it fails, its sentence to the run; by hand it only logs. Exit status
0: committed; 1: failed, with one sentence as the last line on stderr; 2: wrong arguments; 128 + n: ended by signal n.
"""

import argparse
import ctypes
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import FrameType

from dagster_pipes import (
    PipesContext,
    PipesDefaultMessageWriter,
    PipesEnvVarParamsLoader,
    PipesS3MessageWriter,
    open_dagster_pipes,
)

from mm_assets.errors import MmError
from mm_assets.launchers.environment import Placement, record_environment, stage_environment
from mm_assets.launchers.messages import failure_message, success_message
from mm_assets.materialize import Workspace
from mm_assets.pipeline import ASSETS
from mm_assets.settings import Settings, read_settings, restart_without_math_modes
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import open_store

logger = logging.getLogger(__name__)

MESSAGE_INTERVAL_S = 1
PR_SET_PDEATHSIG = 1
#: The signal that ended this process.
_ended_by: int | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one stage and returns the exit status."""
    arguments = _parse(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _end_with_the_parent()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    partition = Partition(release=arguments.release, shard=arguments.shard)
    name = f"{arguments.asset} {partition.path}"
    try:
        settings = read_settings()
        with _pipes(settings) as pipes:
            return _run(pipes, settings, arguments, partition)
    except MmError as error:
        return _fail(str(error))
    except Exception as error:
        logger.exception("%s: failed", name)
        return _fail(_sentence(name, error))


def _run(pipes: PipesContext | None, settings: Settings, arguments: argparse.Namespace, partition: Partition) -> int:
    name = f"{arguments.asset} {partition.path}"
    logger.info("%s: started", name)
    try:
        if pipes is not None:
            pipes.log.info("%s: started", name)
        store = open_store(settings)
        environment = stage_environment()
        if arguments.placement:
            record_environment(store, Placement.decode(arguments.placement), environment)
        committed = Workspace(settings, store).run(
            arguments.asset,
            partition,
            environment=environment,
            run_id=arguments.run_id,
            force=arguments.force,
            before_commit=_require_not_ended,
        )
    except MmError as error:
        if pipes is not None:
            pipes.report_custom_message(failure_message(str(error), error))
        return _fail(str(error))
    except Exception as error:
        if pipes is not None:
            pipes.report_custom_message(failure_message(_sentence(name, error), error))
        raise
    how = "cached" if committed.cached else "computed"
    if pipes is not None:
        pipes.log.info("%s: %s %s", name, how, committed.manifest.content)
        pipes.report_custom_message(success_message(committed.manifest_digest, cached=committed.cached))
    return 0


@contextmanager
def _pipes(settings: Settings) -> Generator[PipesContext | None]:
    """The connection to the Dagster run that launched this process, or None if nobody did."""
    loader = PipesEnvVarParamsLoader()
    if not loader.is_dagster_pipes_process():
        yield None
        return
    writer: PipesDefaultMessageWriter | PipesS3MessageWriter = PipesDefaultMessageWriter()
    if "bucket" in loader.load_messages_params():
        # Opened first: its errors are sentences, those of the writer's thread are not.
        writer = PipesS3MessageWriter(open_store(settings).client, interval=MESSAGE_INTERVAL_S)
    with open_dagster_pipes(message_writer=writer, params_loader=loader) as pipes:
        yield pipes


def _fail(sentence: str) -> int:
    sys.stderr.write(f"error: {sentence}\n")
    return 1


def _sentence(name: str, error: Exception) -> str:
    return f"{name}: {type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mm_assets.entrypoint", description="Materialize one partition.")
    parser.add_argument("--asset", required=True, choices=[asset.name for asset in ASSETS.values()])
    parser.add_argument("--release", required=True)
    parser.add_argument("--shard")
    parser.add_argument("--force", action="store_true", help="compute even if the result is known")
    parser.add_argument("--run-id", help="run that the commit is recorded under")
    parser.add_argument("--placement", help="canonical JSON under which this environment is recorded")
    return parser.parse_args(argv)


def _end(number: int, frame: FrameType | None) -> None:
    """Ends the worker's own processes, then unwinds this one so that its temporary files go."""
    global _ended_by
    _ended_by = number
    signal.signal(number, signal.SIG_IGN)
    logger.warning("signal %s: stopping", signal.Signals(number).name)
    if os.getpgrp() == os.getpid():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
    for child in multiprocessing.active_children():
        child.terminate()
    raise SystemExit(128 + number)


def _require_not_ended() -> None:
    """Ends this process if a signal came: an extension module that runs at that moment may have swallowed the exit."""
    if _ended_by is not None:
        raise SystemExit(128 + _ended_by)


def _end_with_the_parent() -> None:
    """Asks the kernel for SIGTERM when the launching process dies, even if it is killed and cannot forward anything."""
    if sys.platform == "linux" and PipesEnvVarParamsLoader().is_dagster_pipes_process():
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    # Libraries that were loaded with the modules above may have read the environment: this process starts anew.
    restart_without_math_modes([sys.executable, "-m", "mm_assets.entrypoint", *sys.argv[1:]])
    sys.exit(main())
