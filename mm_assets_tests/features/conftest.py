"""Snapshots built by hand, so that the tests of features do not depend on the snapshot stage."""

import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mm_assets.features.config import FeaturesConfig
from mm_assets.identity.canonical import digest_bytes, digest_json, to_json
from mm_assets.settings import Settings
from mm_assets.store.commit import Committed, OutputFile, StageResult, materialize
from mm_assets.store.manifest import Input, Partition, Recipe
from mm_assets.store.objects import Store
from mm_assets.store.tables import PARQUET_TYPE, TAR_TYPE, table_of, write_parquet

PARTITION = Partition(release="r1", shard="0000")
#: Blobs of one sample by extension: {"txt": b"...", "png": b"..."}.
Blobs = Mapping[str, bytes]
MODALITY = {"txt": "text", "png": "image", "jpg": "image", "webp": "image"}
COLUMNS = [pa.field("id", pa.string()), ("object", pa.string())] + [
    field
    for modality in ("text", "image", "audio")
    for field in (
        (f"has_{modality}", pa.bool_()),
        (f"{modality}_digest", pa.string()),
        (f"{modality}_offset", pa.int64()),
        (f"{modality}_size_bytes", pa.int64()),
        (f"{modality}_format", pa.string()),
    )
]


def write_snapshot(samples: Mapping[str, Blobs], folder: Path, *, order: list[str] | None = None) -> tuple[Path, Path]:
    """``samples.tar`` and ``samples.parquet`` of the samples; ``order`` (default: by id) is that of the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    tar_path = folder / "samples.tar"
    rows: dict[str, dict[str, Any]] = {}
    with tarfile.open(tar_path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in sorted(samples):
            row: dict[str, Any] = {"id": sample, "object": "raw/test/d/a.tar"}
            row |= {f"has_{modality}": False for modality in ("text", "image", "audio")}
            for extension, data in sorted(samples[sample].items()):
                info = tarfile.TarInfo(f"{sample.replace('/', '%2F')}.{extension}")
                info.size = len(data)
                offset = tar.offset + 512
                tar.addfile(info, io.BytesIO(data))
                row |= _columns(MODALITY.get(extension, "audio"), extension, data, offset)
            rows[sample] = row
    table = table_of([rows[sample] for sample in (order or sorted(samples))], pa.schema(COLUMNS))
    return tar_path, write_parquet(table, folder / "samples.parquet")


def _columns(modality: str, extension: str, data: bytes, offset: int) -> dict[str, Any]:
    return {
        f"has_{modality}": True,
        f"{modality}_digest": digest_bytes(data),
        f"{modality}_offset": offset,
        f"{modality}_size_bytes": len(data),
        f"{modality}_format": extension,
    }


def commit_snapshot(
    store: Store, samples: Mapping[str, Blobs], folder: Path, *, order: list[str] | None = None
) -> Committed:
    """A committed snapshot of one shard."""
    tar, rows = write_snapshot(samples, folder, order=order)
    recipe = Recipe(
        asset="snapshot",
        partition=PARTITION,
        code=digest_json("snapshot"),
        params={"ids": list(order or sorted(samples))},
        environment={},
        inputs=(),
    )
    files = (
        OutputFile(name="samples.tar", path=tar, media_type=TAR_TYPE),
        OutputFile(name="samples.parquet", path=rows, media_type=PARQUET_TYPE, num_rows=len(samples)),
    )
    stats = {"rows_in": len(samples), "rows_out": len(samples), "dead_letters": 0}
    return materialize(store, recipe, lambda: StageResult(files=files, stats=stats), force=True)


def features_recipe(snapshot: str, config: FeaturesConfig) -> Recipe:
    """The recipe of features for a snapshot, without a release spec."""
    entry = Input(asset="snapshot", partition=PARTITION.model_dump(exclude_none=True), digest=snapshot)
    params: Any = to_json(config)
    return Recipe(
        asset="features",
        partition=PARTITION,
        code=digest_json("features"),
        params=params,
        environment={},
        inputs=(entry,),
    )


@pytest.fixture
def make_features(store: Store, settings: Settings, tmp_path: Path) -> Callable[..., Committed]:
    """Runs ``compute_features`` on samples and commits the result."""
    from mm_assets.features.extract import compute_features

    counter = iter(range(1_000))

    def run(samples: Mapping[str, Blobs], config: FeaturesConfig | None = None, order: list[str] | None = None):
        folder = tmp_path / f"run{next(counter)}"
        snapshot = commit_snapshot(store, samples, folder / "in", order=order)
        recipe = features_recipe(snapshot.manifest_digest, config or FeaturesConfig())
        (folder / "out").mkdir()
        return materialize(store, recipe, lambda: compute_features(store, recipe, folder / "out", settings), force=True)

    return run
