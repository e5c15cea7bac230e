"""What snapshot and features cost beside the bare work: ratios of CPU seconds within one run.

Pictures are drawn with edges and noise, so that a JPEG of 512 x 384 pixels has about the bytes of a photograph.
"""

import hashlib
import io
import math
import multiprocessing
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from mm_assets.configurations import ReleaseRequest, open_named_release
from mm_assets.demo.figures import Figure
from mm_assets.drops.create import create_drop, push_drop
from mm_assets.features.blobs import TarBlobs
from mm_assets.features.config import FeaturesConfig
from mm_assets.features.extract import extract_shard
from mm_assets.identity.canonical import digest_bytes
from mm_assets.materialize import Workspace
from mm_assets.modalities.table import aspect
from mm_assets.snapshot.blobs import BLOB_COLUMNS
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import Store
from mm_assets.store.tables import read_parquet, write_parquet

SOURCE = "stages"
WIDTH, HEIGHT = 512, 384
NUM_PICTURES = 400
ROUNDS = 3

Blobs = Sequence[bytes]


def measure_stages(workspace: Workspace, folder: Path) -> list[Figure]:
    """The figures of snapshot and features."""
    folder.mkdir(parents=True)
    pictures = [draw_jpeg(number) for number in range(NUM_PICTURES)]
    return [_snapshot(workspace, folder / "raw", pictures), *_features(folder, pictures)]


def draw_jpeg(number: int) -> bytes:
    """A picture of shapes and noise; one in ten is progressive."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    waves = rng.uniform(0.005, 0.08, (3, 2))
    planes = [np.sin(columns * x + rows * y) * 80 + 128 for x, y in waves]
    pixels = np.stack(planes, axis=-1) + rng.normal(0, 12, (HEIGHT, WIDTH, 3))
    file = io.BytesIO()
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    picture.save(file, "JPEG", quality=88, progressive=number % 10 == 0)
    return file.getvalue()


def _snapshot(workspace: Workspace, folder: Path, pictures: Blobs) -> Figure:
    """CPU of the snapshot of a shard, and of getting, hashing and putting the same bytes."""
    folder.mkdir()
    with tarfile.open(folder / "a.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for number in range(4 * len(pictures)):
            data = pictures[number % len(pictures)] + b"%08d" % number
            info = tarfile.TarInfo(f"s{number:06d}.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    create_drop(folder, SOURCE, "pictures")
    push_drop(workspace.store, folder)
    request = ReleaseRequest(release="stages", drops=((SOURCE, "pictures"),), configuration="smoke", num_shards=1)
    open_named_release(workspace, request)
    size = (folder / "a.tar").stat().st_size
    key = f"raw/{SOURCE}/pictures/a.tar"
    partition = Partition(release="stages", shard="0000")
    bare, made = _best(
        lambda: _copy(workspace.store, key, folder / "copy"),
        lambda: workspace.run("snapshot", partition, environment={}, force=True),
    )
    return Figure(
        what="snapshot against get + sha256 + put",
        value=f"{made / bare:.2f}",
        detail=f"CPU of {size / 1e6:.0f} MB: {made:.2f} s against {bare:.2f} s",
    )


def _copy(store: Store, key: str, path: Path) -> None:
    hasher = hashlib.sha256()
    with store.open_key(key) as body, path.open("wb") as file:
        while chunk := body.read(1 << 20):
            hasher.update(chunk)
            file.write(chunk)
    store.upload_key(f"copies/{hasher.hexdigest()}", path)


def _features(folder: Path, pictures: Blobs) -> list[Figure]:
    work = folder / "features"
    write_blobs(work, pictures)
    count = len(pictures)
    config, modules = FeaturesConfig(), [aspect("image", name) for name in ("decode", "tensor", "signals")]
    decode, tensor, signals = modules

    def kept() -> None:
        assert len([Image.open(io.BytesIO(data)).convert("RGB") for data in pictures]) == count

    def bare() -> None:
        for data in pictures:
            Image.open(io.BytesIO(data)).convert("RGB")

    def plain() -> None:
        for data in pictures:
            tensor.make_tensor(decode.decode(data, config), config)

    def measured() -> None:
        for data in pictures:
            image = decode.decode(data, config)
            tensor.make_tensor(image, config)
            signals.measure(image, config)

    kept_s, bare_s, plain_s, measured_s, whole_s = _best(kept, bare, plain, measured, lambda: extract(work))
    signals_s = measured_s - plain_s
    without_s = whole_s - signals_s
    one, two = _two_workers(folder, pictures)
    parts = ", ".join(
        f"{name} {seconds / count * 1e6:.0f}"
        for name, seconds in (
            ("bare", kept_s),
            ("decoded and made a tensor", plain_s),
            ("signals", signals_s),
            ("all", whole_s),
        )
    )
    return [
        Figure(
            what="features without signals against bare decoding",
            value=f"{kept_s / without_s:.2f}",
            detail=f"{bare_s / without_s:.2f} against pictures that are dropped at once; us a picture: {parts}",
        ),
        Figure(
            what="signals, of features without them",
            value=f"{signals_s / without_s:+.0%}",
            detail=f"{signals_s / count * 1e6:.0f} us of CPU a picture of {WIDTH} x {HEIGHT}",
        ),
        Figure(
            what="features with two workers against one",
            value=f"{2 * one / two:.2f}",
            detail=f"wall, best of {ROUNDS}: {2 * count} pictures in {two:.2f} s by two, {count} in {one:.2f} s by one",
        ),
    ]


def write_blobs(folder: Path, pictures: Blobs) -> None:
    """Writes pictures one behind the other, and the rows that say where each is."""
    folder.mkdir()
    rows: list[Mapping[str, Any]] = []
    with (folder / "blobs").open("wb") as file:
        for number, data in enumerate(pictures):
            place = {"image_digest": digest_bytes(data), "image_offset": file.tell(), "image_size_bytes": len(data)}
            file.write(data)
            rows.append({"id": f"s{number:06d}", "object": "a.tar", **place})
    table = pa.table({name: pa.array([row.get(name) for row in rows]) for name in ("id", "object", *BLOB_COLUMNS)})
    write_parquet(table, folder / "rows")


def extract(folder: Path) -> None:
    """Tensors and signals of the pictures in a folder, as the stage makes them."""
    with TarBlobs(folder / "blobs") as blobs:
        extract_shard(read_parquet(folder / "rows"), blobs, FeaturesConfig(), folder)


def _two_workers(folder: Path, pictures: Blobs) -> tuple[float, float]:
    """Seconds that one process takes with all pictures, and that two take with all pictures each, in turn."""
    folders = [folder / f"worker-{number}" for number in range(2)]
    for own in folders:
        write_blobs(own, pictures)
    best = {1: math.inf, 2: math.inf}
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(extract, folders))
        for _ in range(ROUNDS):
            for workers in best:
                started = time.monotonic()
                list(pool.map(extract, folders[:workers]))
                best[workers] = min(best[workers], time.monotonic() - started)
    return best[1], best[2]


def _best(*works: Callable[[], object]) -> list[float]:
    """CPU seconds of each, the least of ``ROUNDS``; they take turns, so that what else is running touches all alike."""
    best = [math.inf] * len(works)
    for _ in range(ROUNDS):
        best = [min(least, _cpu_s(work)) for least, work in zip(best, works, strict=True)]
    return best


def _cpu_s(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started
