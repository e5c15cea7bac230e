"""What a snapshot and its check take of memory at most, on data that were made to take much.

Each is made by a process of its own, which reports its highest resident memory.
"""

import argparse
import io
import json
import random
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mm_assets.configurations import ReleaseRequest, open_named_release
from mm_assets.demo.figures import Figure, peak_mb
from mm_assets.drops.create import create_drop, push_drop
from mm_assets.materialize import Workspace
from mm_assets.settings import Settings, read_settings, worker_environment
from mm_assets.store.embedded import ensure_running
from mm_assets.store.manifest import Partition

SOURCE = "memory"
METADATA_BYTES = 112_000
CELL_BYTES = 1_000_000
PICTURE_BYTES = 2_000_000

Make = Callable[[Path, int], None]


def measure_memory(settings: Settings, folder: Path, *, is_full: bool = False) -> list[Figure]:
    """The figures of ``make bench``: a twentieth of what ``is_full`` asks for."""
    scale = 20 if is_full else 1
    cases: list[tuple[str, Make, int]] = [
        (f"{100_000 * scale:,} members", write_members, 100_000 * scale),
        (f"{100 * scale:,} samples with 224 kB of metadata", write_metadata, 100 * scale),
        (f"{250 * scale:,} MB of pictures", write_pictures, 125 * scale),
        (f"{150 * scale:,} rows with a 1 MB cell each in a small Parquet index", write_cells, 150 * scale),
    ]
    figures: list[Figure] = []
    for number, (what, make, size) in enumerate(cases):
        peaks = peaks_of(settings, folder / str(number), f"memory-{number}", make, size)
        detail = f"snapshot {peaks['snapshot']} MB in {peaks['wall_s']} s, its check {peaks['check']} MB"
        figures.append(
            Figure(what=f"memory: {what}", value=f"{max(peaks['snapshot'], peaks['check'])} MB", detail=detail)
        )
    return figures


def peaks_of(settings: Settings, folder: Path, name: str, make: Make, size: int) -> dict[str, int]:
    """Highest resident megabytes of the snapshot and of the check of one shard, and the snapshot's seconds.

    Args:
        settings: Of a deployment with an embedded store.
        folder: For the raw data; made here.
        name: Of the drop and the release.
        make: Writes the raw data.
        size: How much of them.
    """
    folder.mkdir(parents=True)
    make(folder, size)
    own = replace(settings, num_shards=1)
    workspace = Workspace(own)
    create_drop(folder, SOURCE, name)
    push_drop(workspace.store, folder)
    open_named_release(workspace, ReleaseRequest(release=name, drops=((SOURCE, name),), configuration="smoke"))
    return {**_child(own, name, "snapshot"), **_child(own, name, "check")}


def write_members(folder: Path, size: int) -> None:
    """A tar of ``size`` small members, two a sample."""
    members = ((f"s{number // 2:08d}.{'txt' if number % 2 else 'json'}", number) for number in range(size))
    _write_tar(folder, ((name, b"{}" if name.endswith("n") else b"text %d" % number) for name, number in members))


def write_metadata(folder: Path, size: int) -> None:
    """A tar of ``size`` samples with much metadata that does not compress."""
    drawn = random.Random(0)

    def members() -> Iterable[tuple[str, bytes]]:
        for number in range(size):
            yield f"s{number:06d}.json", json.dumps({"note": drawn.randbytes(METADATA_BYTES).hex()}).encode()
            yield f"s{number:06d}.txt", b"text %d" % number

    _write_tar(folder, members())


def write_pictures(folder: Path, size: int) -> None:
    """A tar of ``size`` pictures of two megabytes."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    drawn = random.Random(0)
    _write_tar(folder, ((f"s{n:06d}.png", file.getvalue() + drawn.randbytes(PICTURE_BYTES)) for n in range(size)))


def write_cells(folder: Path, size: int) -> None:
    """A Parquet index of ``size`` rows, each with the same large cell in a column of metadata."""
    cell = pa.array(["x" * CELL_BYTES])
    notes = pa.DictionaryArray.from_arrays(pa.array([0] * size, pa.int32()), cell)
    ids = [f"r{number}" for number in range(size)]
    pq.write_table(pa.table({"id": ids, "text": ids, "note": notes}), folder / "index.parquet", compression="zstd")


def _write_tar(folder: Path, members: Iterable[tuple[str, bytes]]) -> None:
    with (folder / "a.tar").open("wb") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.write(info.tobuf(tarfile.USTAR_FORMAT))
            file.write(data)
            file.write(bytes(-len(data) % tarfile.BLOCKSIZE))
        file.write(bytes(2 * tarfile.BLOCKSIZE))


def _child(settings: Settings, release: str, work: str) -> dict[str, int]:
    environment = worker_environment(settings) | ensure_running(settings.home).environment()
    answer = subprocess.run(
        [sys.executable, "-m", "mm_assets.demo.bench_memory", "--release", release, "--work", work],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(answer.stdout.splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes or checks the snapshot of the only shard of a release, and prints the megabytes that it took at most."""
    parser = argparse.ArgumentParser(prog="bench_memory", description=__doc__)
    parser.add_argument("--release", required=True)
    parser.add_argument("--work", required=True, choices=["snapshot", "check"])
    args = parser.parse_args(arguments)
    workspace = Workspace(read_settings())
    partition = Partition(release=args.release, shard="0000")
    started = time.monotonic()
    report: dict[str, int] = {}
    if args.work == "snapshot":
        workspace.run("snapshot", partition, environment={})
        report["wall_s"] = round(time.monotonic() - started)
    else:
        workspace.check("snapshot", partition)
    report[args.work] = peak_mb()
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
