"""Snapshots built by hand, so that the tests of features do not depend on the snapshot stage."""

import io
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mm_assets.checks.rules import Rules, rules_in_force
from mm_assets.features.bootstrap import ENCODER_FILE, bootstrap_encoder_bytes
from mm_assets.features.config import EncoderConfig, FeaturesConfig
from mm_assets.identity.canonical import Json, digest_bytes, to_json
from mm_assets.materialize import packaged_rules
from mm_assets.modalities.table import NAMES
from mm_assets.store.commit import Attempt, Committed
from mm_assets.store.job import Job
from mm_assets.store.manifest import Input, NamedDigest, Partition
from mm_assets.store.objects import Store
from mm_assets.store.tables import table_of, write_parquet
from mm_assets_tests.by_hand import action_of, commit_files, input_of

PARTITION = Partition(release="r1", shard="0000")
#: Blobs of one sample by extension: {"txt": b"...", "png": b"..."}.
Blobs = Mapping[str, bytes]
MODALITY = {"txt": "text", "png": "image", "jpg": "image", "webp": "image", "mp4": "video"}
COLUMNS = (
    [pa.field("id", pa.string()), ("object", pa.string())]
    + [
        field
        for modality in NAMES
        for field in (
            (f"has_{modality}", pa.bool_()),
            (f"{modality}_digest", pa.string()),
            (f"{modality}_offset", pa.int64()),
            (f"{modality}_size_bytes", pa.int64()),
            (f"{modality}_format", pa.string()),
        )
    ]
    + [("video_start_us", pa.int64()), ("video_end_us", pa.int64())]
)


def write_snapshot(samples: Mapping[str, Blobs], folder: Path, *, order: list[str] | None = None) -> tuple[Path, Path]:
    """``samples.tar`` and ``samples.parquet`` of the samples; ``order`` (default: by id) is that of the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    tar_path = folder / "samples.tar"
    rows: dict[str, dict[str, Any]] = {}
    with tarfile.open(tar_path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in sorted(samples):
            row: dict[str, Any] = {"id": sample, "object": "raw/test/d/a.tar"}
            row |= {f"has_{modality}": False for modality in NAMES}
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
    stats: dict[str, Json] = {"rows_in": len(samples), "rows_out": len(samples), "dead_letters": 0}
    files = {"samples.tar": tar, "samples.parquet": rows}
    return commit_files(store, action_of("snapshot"), PARTITION, files, stats=stats)


@pytest.fixture
def make_features(store: Store, tmp_path: Path) -> Callable[..., Committed]:
    """Runs ``compute_features`` on samples and commits the result."""
    from mm_assets.features.extract import compute_features

    counter = iter(range(1_000))

    def run(samples: Mapping[str, Blobs], config: FeaturesConfig | None = None, order: list[str] | None = None):
        folder = tmp_path / f"run{next(counter)}"
        snapshot = commit_snapshot(store, samples, folder / "in", order=order)
        action = action_of("features", [input_of(snapshot)], params_of(config or FeaturesConfig()))
        (folder / "out").mkdir()
        result = compute_features(Job(store=store, action=action, workdir=folder / "out"))
        return Attempt(store, action, PARTITION).commit_result(result)

    return run


@pytest.fixture
def embed(
    store: Store, tmp_path: Path, make_features: Callable[..., Committed]
) -> Callable[..., tuple[Committed, Committed]]:
    """Runs features and embeddings on samples; returns both committed partitions."""
    from mm_assets.features.embed import compute_embeddings

    def run(samples: Mapping[str, Blobs], config: EncoderConfig | None = None, microbatch_size: int = 64):
        config = config or EncoderConfig()
        features = make_features(samples)
        digest = store.put_bytes(bootstrap_encoder_bytes(config))
        encoder = Input(
            asset="encoder",
            partition={"kind": "bootstrap"},
            manifest=digest,
            outputs=[NamedDigest(name=ENCODER_FILE, digest=digest)],
        )
        action = action_of("embeddings", [input_of(features), encoder], to_json(config))
        folder = tmp_path / f"embed{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        placement = {"microbatch_size": microbatch_size}
        result = compute_embeddings(Job(store=store, action=action, workdir=folder, placement=placement))
        return features, Attempt(store, action, PARTITION).commit_result(result)

    return run


def params_of(config: FeaturesConfig | EncoderConfig) -> dict[str, Json]:
    """A section of the configuration as the parameters of an action."""
    return {name: to_json(value) for name, value in asdict(config).items()}


@pytest.fixture
def rules(store: Store) -> Rules:
    """The packaged rules."""
    return rules_in_force(store, "r1", {}, packaged_rules())
