"""A small dataset release in a store, as the stages before this one would have left it."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mm_assets.batching.config import PlanConfig
from mm_assets.batching.inputs import resolve_batch_plan
from mm_assets.batching.plan import compute_batch_plan
from mm_assets.checks.validations import record_validation
from mm_assets.features.config import FeaturesConfig
from mm_assets.features.schema import tensors_schema
from mm_assets.identity.canonical import to_json
from mm_assets.releases.spec import ReleaseSpec
from mm_assets.settings import Settings
from mm_assets.store.commit import OutputFile, StageResult, materialize
from mm_assets.store.manifest import Manifest, Partition, Recipe
from mm_assets.store.objects import Store
from mm_assets.store.refs import require_ref
from mm_assets.store.tables import JSON_TYPE, PARQUET_TYPE, write_arrow, write_parquet
from mm_assets.training.config import AugmentConfig, ModelConfig, OptimizerConfig, TrainingConfig
from mm_assets.training.inputs import resolve_model
from mm_assets.training.train import compute_model

RELEASE = Partition(release="r1")
FEATURES = FeaturesConfig(image_size=16, num_mels=8)
PLAN = PlanConfig(pack_tokens=64, packs_per_lane=1, image_patch=8, audio_stack=4, window=16, block=4)
TRAINING = TrainingConfig(
    model=ModelConfig(
        width=16, heads=2, tower_layers=1, fused_layers=1, ngrams=(2,), ngram_buckets=32, stem_channels=(4, 4),
        projection_dim=8, max_positions=32,
    ),
    optimizer=OptimizerConfig(warmup_steps=2),
    augment=AugmentConfig(shift=2),
    log_every=2,
)  # fmt: skip
WORDS = ("red apple", "blue whale", "green tree", "grey stone")


@dataclass(frozen=True)
class Bench:
    """A store with one release, and the two stages that are tried on it."""

    store: Store
    settings: Settings
    folder: Path
    spec: ReleaseSpec

    def plan(self) -> Manifest:
        recipe = resolve_batch_plan(self.store, self.spec, RELEASE, {})
        return self.commit(recipe, lambda workdir: compute_batch_plan(self.store, recipe, workdir, self.settings))

    def model_recipe(self, environment: dict[str, Any] | None = None) -> Recipe:
        return resolve_model(self.store, self.spec, RELEASE, environment or {})

    def train(self, *, world_size: int = 1, force: bool = False) -> Manifest:
        recipe = self.model_recipe()
        settings = replace(self.settings, world_size=world_size)
        return self.commit(recipe, lambda workdir: compute_model(self.store, recipe, workdir, settings), force=force)

    def commit(self, recipe: Recipe, compute: Callable[[Path], StageResult], *, force: bool = False) -> Manifest:
        """Materializes and validates, so that the next stage's gate opens."""

        def in_new_folder() -> StageResult:
            workdir = self.folder / f"{recipe.asset}-{len(list(self.folder.iterdir()))}"
            workdir.mkdir()
            return compute(workdir)

        committed = materialize(self.store, recipe, in_new_folder, force=force)
        ref = require_ref(self.store, recipe.asset, recipe.partition)
        record_validation(self.store, ref, rules=committed.manifest.code, findings=())
        return committed.manifest


@pytest.fixture
def make_bench(store: Store, settings: Settings, tmp_path: Path) -> Callable[..., Bench]:
    """Builds a ``Bench``; see ``sample_row`` for what a sample is made of."""

    def make(
        *,
        num_samples: int = 24,
        modalities: tuple[str, ...] = ("text", "image", "audio"),
        is_labelled: bool = True,
        num_steps: int = 6,
        checkpoint_every: int = 2,
    ) -> Bench:
        sections = {
            "plan": replace(PLAN, num_steps=num_steps),
            "training": replace(TRAINING, checkpoint_every=checkpoint_every),
            "features": FEATURES,
        }
        spec = ReleaseSpec(
            schema="mm.release/1", release="r1", drops=[], parent=None, exclusions=[], policy={}, encoder={}, seed=5,
            num_shards=2, recipe={name: to_json(section) for name, section in sections.items()},
        )  # fmt: skip
        folder = tmp_path / "bench"
        folder.mkdir(exist_ok=True)
        bench = Bench(store=store, settings=settings, folder=folder, spec=spec)
        rows = [sample_row(index, modalities, is_labelled=is_labelled) for index in range(num_samples)]
        commit_release(bench, rows)
        return bench

    return make


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
    }


def commit_release(bench: Bench, rows: list[dict[str, Any]]) -> Manifest:
    """Writes two shards of tensors and the tables of a dataset release, and commits them."""
    recipe = Recipe(
        asset="dataset_release", partition=RELEASE, code="sha256:" + "0" * 64, params={"rows": len(rows)},
        environment={}, inputs=(),
    )  # fmt: skip

    def compute(workdir: Path) -> StageResult:
        shards: list[dict[str, Any]] = []
        schema = tensors_schema(FEATURES)
        for shard in range(2):
            members = rows[shard::2]
            table = pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in members], schema)
            path = write_arrow(table, workdir / f"{shard}.arrow")
            shards.append({"release": "r1", "shard": f"{shard:04d}", "tensors": bench.store.put_file(path)})
        (workdir / "shards.json").write_text(json.dumps({"shards": shards}))
        columns = ("id", "split", "label", "has_image", "text_tokens", "audio_frames")
        samples = [
            {name: row[name] for name in columns}
            | {"release": "r1", "shard": f"{index % 2:04d}", "row": index // 2, "selected": True}
            for index, row in enumerate(rows)
        ]
        schema = pa.schema([
            ("id", pa.string()), ("split", pa.string()), ("label", pa.string()), ("has_image", pa.bool_()),
            ("text_tokens", pa.int32()), ("audio_frames", pa.int32()), ("release", pa.string()),
            ("shard", pa.string()), ("row", pa.int32()), ("selected", pa.bool_()),
        ])  # fmt: skip
        write_parquet(pa.Table.from_pylist(samples, schema), workdir / "samples.parquet")
        files = (
            OutputFile(name="samples.parquet", path=workdir / "samples.parquet", media_type=PARQUET_TYPE),
            OutputFile(name="shards.json", path=workdir / "shards.json", media_type=JSON_TYPE),
        )
        return StageResult(files=files, stats={})

    return bench.commit(recipe, compute)
