"""Runs a release to its freeze in processes that are killed at random moments, and says what became of it.

    python -m mm_assets_tests.operations.killed_runs --seed 1 --kills 3 --folder FOLDER [--assets snapshot,features]

The environment names an empty store; a run without kills and every run with them have a folder of their own in it.
Prints one JSON object: the contents and computations of the clean run, and of each killed one.
"""

import argparse
import importlib
import json
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random

from mm_assets.settings import Settings, clear_math_modes, read_settings

ASSETS = ("snapshot", "features", "embeddings", "dataset_release")
#: What is slow to import, of the checks and of each asset.
IMPORTED = ("mm_assets.snapshot.compute", "great_expectations", "mm_assets.features.embed", "mm_assets.release.freeze")
RELEASE = "r1"
SOURCE, DROP = "shapes", "d1"
NUM_SHARDS, SAMPLES_PER_SHARD = 3, 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What came of one release.

    Attributes:
        contents: By asset and partition.
        computed: How often the computation of each began.
        kills: How many processes were killed.
        seconds: Of the last process; of a clean run, the only one.
        left: Scratch folders that are still there.
    """

    contents: Mapping[str, str]
    computed: Mapping[str, int]
    kills: int
    seconds: float
    left: int


def advance_release(settings: Settings, assets: Sequence[str]) -> None:
    """The work of one process: materializes what is not yet, and checks what another asset is made from."""
    from mm_assets.materialize import Workspace, partitions_of
    from mm_assets.pipeline import ASSETS as TABLE
    from mm_assets.store.objects import open_store
    from mm_assets_tests.stores import advance

    workspace = Workspace(settings, open_store(settings))
    advance(workspace, RELEASE, assets[:-1])
    for partition in partitions_of(workspace.spec(RELEASE), TABLE[assets[-1]]):
        workspace.run(assets[-1], partition, environment={})


def open_world(settings: Settings, folder: Path) -> None:
    """Pushes a drop of tars, one per shard, and opens a release over it."""
    from mm_assets.configurations import ReleaseRequest, open_named_release
    from mm_assets.drops.create import create_drop, push_drop
    from mm_assets.materialize import Workspace
    from mm_assets.store.objects import open_store
    from mm_assets_tests.conftest import blocks, picture_bytes, tone, wav_bytes
    from mm_assets_tests.drops.raw_data import tar_bytes

    store = open_store(settings)
    if not folder.exists():
        folder.mkdir()
        for shard in range(NUM_SHARDS):
            members: list[tuple[str, bytes]] = []
            for number in range(shard * SAMPLES_PER_SHARD, (shard + 1) * SAMPLES_PER_SHARD):
                label = "circle" if number % 2 else "square"
                members += [
                    (f"s{number:03d}.txt", f"{label} number {number}".encode()),
                    (f"s{number:03d}.png", picture_bytes(blocks(number))),
                    (f"s{number:03d}.wav", wav_bytes(tone(300 + 40 * number, 0.5, 16_000), 16_000)),
                    (f"s{number:03d}.json", json.dumps({"label": label, "language": "en"}).encode()),
                ]
            (folder / f"{shard}.tar").write_bytes(tar_bytes(members))
        create_drop(folder, SOURCE, DROP)
    push_drop(store, folder)
    request = ReleaseRequest(release=RELEASE, drops=((SOURCE, DROP),), configuration="smoke", num_shards=NUM_SHARDS)
    open_named_release(Workspace(settings, store), request)


def run_killed(
    settings: Settings, assets: Sequence[str], scratch: Path, random: Random, *, kills: int, longest_s: float
) -> Run:
    """Starts processes until one ends by itself, and kills ``kills`` of them at most."""
    log = scratch / "computed"
    log.touch()
    killed = 0
    while True:
        begun = time.monotonic()
        process = _start(settings, assets, scratch, log)
        delay_s = random.uniform(0.01, longest_s) if killed < kills else 600.0
        status = _wait(process, begun + delay_s)
        if status is None:
            os.kill(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
        if os.WIFSIGNALED(status):
            killed += 1
        elif os.WEXITSTATUS(status):
            raise RuntimeError((scratch / "error").read_text())
        else:
            break
    left = sum(1 for path in scratch.glob("mm-*") if path.is_dir())
    return Run(
        contents=_contents(settings), computed=dict(Counter(log.read_text().split())), kills=killed,
        seconds=time.monotonic() - begun, left=left,
    )  # fmt: skip


def _start(settings: Settings, assets: Sequence[str], scratch: Path, log: Path) -> int:
    process = os.fork()
    if process:
        return process
    try:
        tempfile.tempdir = str(scratch)
        _note_computations(log)
        advance_release(settings, assets)
    except BaseException:
        (scratch / "error").write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)


def _note_computations(log: Path) -> None:
    """Appends ``asset:partition`` where a computation begins: one write, which a kill leaves whole or undone."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)

    class Note(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.msg == "%s %s: computing" and isinstance(record.args, tuple):
                os.write(descriptor, ":".join(map(str, record.args)).encode() + b"\n")

    logger = logging.getLogger("mm_assets.materialize")
    logger.setLevel(logging.INFO)
    logger.addHandler(Note())


def _wait(process: int, until: float) -> int | None:
    """The status of a process that ends before ``until``, else None."""
    while time.monotonic() < until:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.002)
    return None


def _contents(settings: Settings) -> dict[str, str]:
    from mm_assets.store.objects import open_store
    from mm_assets.store.refs import list_refs

    refs = [ref for ref in list_refs(open_store(settings)) if ref.asset in ASSETS]
    return {f"{ref.asset}:{'/'.join(filter(None, (ref.release, ref.shard)))}": ref.content for ref in refs}


def main() -> None:
    """One clean run, and as many killed ones as it takes for all kills."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", required=True)
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--assets", default=",".join(ASSETS), help="a beginning of the pipeline")
    args = parser.parse_args()
    clear_math_modes()
    # What this process has imported its children need not import again.
    assets = args.assets.split(",")
    for name in IMPORTED[: len(assets)]:
        importlib.import_module(name)

    settings, random = read_settings(), Random(args.seed)
    runs: list[Run] = []
    left = args.kills
    while not runs or left > 0:
        own = replace(settings, store_uri=f"{settings.store_uri}/{len(runs)}")
        scratch = args.folder / f"run-{len(runs)}"
        scratch.mkdir()
        open_world(own, args.folder / "drop")
        kills = 0 if not runs else left
        longest_s = runs[0].seconds / 3 if runs else 0.0
        runs.append(run_killed(own, assets, scratch, random, kills=kills, longest_s=longest_s))
        left -= runs[-1].kills
    sys.stdout.write(json.dumps({"clean": asdict(runs[0]), "killed": [asdict(run) for run in runs[1:]]}) + "\n")


if __name__ == "__main__":
    main()
