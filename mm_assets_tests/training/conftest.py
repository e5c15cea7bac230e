"""A small dataset release in a store, as the stages before this one would have left it."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mm_assets.batching.config import PlanConfig
from mm_assets.configurations import SMOKE, PlacementConfig
from mm_assets.features.config import FeaturesConfig
from mm_assets.features.schema import tensors_schema
from mm_assets.identity.canonical import digest_json
from mm_assets.materialize import Workspace
from mm_assets.release.shards import Shard, write_shards
from mm_assets.settings import Settings
from mm_assets.store.action import Action
from mm_assets.store.manifest import Manifest, Partition
from mm_assets.store.objects import Store
from mm_assets.store.tables import write_arrow, write_parquet
from mm_assets.training.config import AugmentConfig, ModelConfig, OptimizerConfig, TrainingConfig
from mm_assets_tests.by_hand import make_by_hand, open_by_hand

FEATURES = FeaturesConfig(image_size=16, num_mels=8)
PLAN = PlanConfig(pack_tokens=64, packs_per_lane=1, image_patch=8, audio_stack=4, window=16, block=4)
TRAINING = TrainingConfig(
    model=ModelConfig(
        width=16, heads=2, tower_layers=1, fused_layers=1, ngrams=(2,), ngram_buckets=32, stem_channels=(4, 4),
        projection_dim=8, max_positions=32,
    ),
    optimizer=OptimizerConfig(warmup_steps=2),
    augment=AugmentConfig(shift=2),
)  # fmt: skip
WORDS = ("red apple", "blue whale", "green tree", "grey stone")


@dataclass(frozen=True)
class Bench:
    """A store with one release, and the two stages that are tried on it."""

    store: Store
    settings: Settings
    folder: Path
    partition: Partition

    def workspace(self, *, world_size: int = 1) -> Workspace:
        return Workspace(replace(self.settings, world_size=world_size), self.store)

    def plan(self) -> Manifest:
        return self.make("batch_plan")

    def model_action(self, environment: dict[str, Any] | None = None) -> Action:
        return self.workspace().resolve("model", self.partition, environment or {})

    def train(self, *, world_size: int = 1, force: bool = False) -> Manifest:
        return self.make("model", world_size=world_size, force=force)

    def make(self, asset: str, *, world_size: int = 1, force: bool = False) -> Manifest:
        """Materializes and checks, so that the next stage may use it."""
        workspace = self.workspace(world_size=world_size)
        committed = workspace.run(asset, self.partition, environment={}, force=force)
        workspace.check(asset, self.partition)
        return committed.manifest

    def failures(self, asset: str) -> list[str]:
        """The rules that the partition's check found broken."""
        record = self.workspace().check(asset, self.partition)
        return [str(finding["rule"]) for finding in record.findings if not finding["passed"]]


@pytest.fixture
def make_bench(store: Store, settings: Settings, tmp_path: Path) -> Callable[..., Bench]:
    """``build_bench`` in the test's store."""
    return functools.partial(build_bench, store, settings, tmp_path / "bench")


def build_bench(
    store: Store,
    settings: Settings,
    folder: Path,
    *,
    release: str = "r1",
    num_samples: int = 24,
    modalities: tuple[str, ...] = ("text", "image", "audio"),
    is_labelled: bool = True,
    num_steps: int = 6,
    checkpoint_every: int = 2,
    log_every: int = 2,
) -> Bench:
    """Builds a ``Bench``; see ``sample_row`` for what a sample is made of."""
    config = replace(
        SMOKE,
        seed=5,
        features=FEATURES,
        plan=replace(PLAN, num_steps=num_steps),
        training=replace(TRAINING, checkpoint_every=checkpoint_every),
        placement=PlacementConfig(log_every=log_every),
    )
    open_by_hand(store, release, config=config, num_shards=2)
    folder.mkdir(exist_ok=True)
    bench = Bench(store=store, settings=settings, folder=folder, partition=Partition(release=release))
    rows = [sample_row(index, modalities, is_labelled=is_labelled) for index in range(num_samples)]
    commit_release(bench, rows)
    return bench


def sample_row(index: int, modalities: tuple[str, ...], *, is_labelled: bool) -> dict[str, Any]:
    """A sample whose three modalities all follow its class; every fifth lacks audio, every sixth is for testing."""
    rng = np.random.default_rng(index)
    kind = index % len(WORDS)
    has = {name: name in modalities and not (name == "audio" and index % 5 == 0) for name in ("text", "image", "audio")}
    text = [1, *(byte + 4 for byte in WORDS[kind].encode()), 2]
    image = np.clip(rng.normal(60 * kind + 30, 10, (FEATURES.image_size, FEATURES.image_size, 3)), 0, 255)
    frames = rng.normal(kind, 0.3, (9 + index % 7, FEATURES.num_mels)).astype("<f4")
    return {
        "id": f"source/drop/{index:04d}",
        "text": text if has["text"] else None,
        "image": image.astype(np.uint8).tobytes() if has["image"] else None,
        "audio": frames.tobytes() if has["audio"] else None,
        "label": WORDS[kind].split()[1] if is_labelled else None,
        "split": "test" if index % 6 == 5 else "train",
        "has_image": has["image"],
        "text_tokens": len(text) if has["text"] else 0,
        "audio_frames": len(frames) if has["audio"] else 0,
        "video": None,
        "video_frames": 0,
    }


def commit_release(bench: Bench, rows: list[dict[str, Any]]) -> None:
    """Writes two shards of tensors and the tables of a dataset release, and commits them."""
    shards: list[Shard] = []
    schema = tensors_schema(FEATURES)
    for number in range(2):
        table = pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in rows[number::2]], schema)
        tensors = bench.store.put_file(write_arrow(table, bench.folder / f"{number}.arrow"))
        nothing = digest_json("not read")
        shards.append(Shard(generation=0, samples=nothing, signals=nothing, embedding_signals=nothing, tensors=tensors))
    columns = ("id", "split", "label", "has_image", "text_tokens", "audio_frames", "video_frames")
    samples = [
        {name: row[name] for name in columns}
        | {"shard": index % 2, "row": index // 2, "selected": True, "source": "source", "group": None}
        for index, row in enumerate(rows)
    ]
    schema = pa.schema([
        ("id", pa.string()), ("split", pa.string()), ("label", pa.string()), ("has_image", pa.bool_()),
        ("text_tokens", pa.int32()), ("audio_frames", pa.int32()), ("video_frames", pa.int32()),
        ("shard", pa.int32()), ("row", pa.int32()), ("selected", pa.bool_()),
        ("source", pa.string()), ("group", pa.string()),
    ])  # fmt: skip
    files = {
        "samples.parquet": write_parquet(pa.Table.from_pylist(samples, schema), bench.folder / "samples.parquet"),
        "shards.json": write_shards(shards, bench.folder / "shards.json"),
    }
    make_by_hand(bench.workspace(), "dataset_release", bench.partition.release, files)
