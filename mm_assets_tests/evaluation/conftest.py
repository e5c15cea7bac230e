"""A frozen release and a small real network, committed by hand: evaluation depends on their formats alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from mm_assets.checks.validations import Finding, record_validation
from mm_assets.evaluation.config import CorruptionConfig, EvaluationConfig
from mm_assets.evaluation.evaluate import compute_evaluation
from mm_assets.evaluation.inputs import resolve_evaluation
from mm_assets.features.config import FeaturesConfig
from mm_assets.features.schema import tensors_schema
from mm_assets.identity.canonical import canonical_json, digest_file, digest_json, to_json
from mm_assets.releases.spec import ReleaseSpec
from mm_assets.settings import Settings
from mm_assets.store.commit import Committed, OutputFile, StageResult, materialize
from mm_assets.store.manifest import Input, Partition, Recipe
from mm_assets.store.objects import Store
from mm_assets.store.refs import require_ref
from mm_assets.store.tables import table_of, write_arrow, write_parquet
from mm_assets.training.config import ModelConfig
from mm_assets.training.network import build_network

PARTITION = Partition(release="r1")
COLUMNS = {
    "id": pa.string(), "release": pa.string(), "shard": pa.string(), "row": pa.int32(), "split": pa.string(),
    "selected": pa.bool_(), "label": pa.string(), "language": pa.string(), "group": pa.string(), "has_text": pa.bool_(),
    "has_image": pa.bool_(), "has_audio": pa.bool_(), "text_tokens": pa.int32(), "audio_frames": pa.int32(),
}  # fmt: skip
FEATURES = FeaturesConfig()
MODALITY_SETS = (("text", "image", "audio"), ("text", "image"), ("text",), ("image", "audio"))
CONFIG = EvaluationConfig(
    microbatch_size=8,
    max_corruption_samples=10,
    corruptions=(
        CorruptionConfig(name="image_blur", severities=(1, 5)),
        CorruptionConfig(name="audio_noise", severities=(3,)),
        CorruptionConfig(name="text_ocr", severities=(5,)),
        CorruptionConfig(name="drop_image", severities=(1,)),
    ),
)


def sample_row(index: int, split: str, *, label: str | None = "cat", **values: Any) -> dict[str, Any]:
    """A row of ``samples.parquet``, its modalities going round."""
    present = values.pop("modalities", MODALITY_SETS[index % len(MODALITY_SETS)])
    row = {
        "id": f"zoo/d1/{index:04d}", "release": "r1", "shard": "0000", "row": index, "split": split, "selected": True,
        "label": label, "language": ("en", "ja", None)[index % 3], "group": None,
    }  # fmt: skip
    return row | {f"has_{name}": name in present for name in ("text", "image", "audio")} | values


def tensors(row: Mapping[str, Any]) -> dict[str, Any]:
    """Features of a row, drawn by its number."""
    rng = np.random.default_rng(row["row"])
    text = [1, *(byte + 4 for byte in f"sample {row['row'] % 5}".encode()), 2]
    image = rng.integers(0, 256, (FEATURES.image_size, FEATURES.image_size, 3), dtype=np.uint8)
    audio = rng.normal(0.5, 0.3, (40, FEATURES.num_mels)).astype("<f4")
    return {
        "id": row["id"],
        "text": text if row["has_text"] else None,
        "image": image.tobytes() if row["has_image"] else None,
        "audio": audio.tobytes() if row["has_audio"] else None,
    }


@dataclass
class World:
    """A store, and the shortest way to an evaluation in it."""

    store: Store
    settings: Settings
    folder: Path

    def commit(self, asset: str, files: Mapping[str, Path], inputs: Sequence[Input] = ()) -> Input:
        """Commits files as an asset with a passed validation."""
        recipe = Recipe(
            asset=asset,
            partition=PARTITION,
            code=digest_json("code"),
            params={"of": {name: digest_file(path) for name, path in files.items()}},
            environment={},
            inputs=tuple(inputs),
        )
        outputs = tuple(OutputFile(name=name, path=path, media_type="x/y") for name, path in files.items())
        committed = materialize(self.store, recipe, lambda: StageResult(files=outputs, stats={}))
        self.accept(asset)
        return Input(asset=asset, partition={"release": "r1"}, digest=committed.manifest_digest)

    def accept(self, asset: str) -> None:
        """Puts a passed validation of what the asset is now on record."""
        ref = require_ref(self.store, asset, PARTITION)
        record_validation(
            self.store, ref, rules=digest_json("r"), findings=[Finding(rule="r", passed=True, detail="good")]
        )

    def release(self, rows: Sequence[Mapping[str, Any]]) -> Input:
        """Commits a dataset release of one shard."""
        arrow = write_arrow(
            table_of([tensors(row) for row in rows], tensors_schema(FEATURES)), self.folder / "tensors.arrow"
        )
        shards = {"shards": [{"release": "r1", "shard": "0000", "tensors": self.store.put_file(arrow)}]}
        (self.folder / "shards.json").write_bytes(canonical_json(shards))
        counted = [
            {**row, "text_tokens": 10 if row["has_text"] else 0, "audio_frames": 40 if row["has_audio"] else 0}
            for row in rows
        ]
        samples = write_parquet(table_of(counted, pa.schema(COLUMNS.items())), self.folder / "samples.parquet")
        return self.commit("dataset_release", {"samples.parquet": samples, "shards.json": self.folder / "shards.json"})

    def model(self, release: Input, classes: Sequence[str], consumed: Sequence[str] = ()) -> Input:
        """Commits an untrained network of those classes and a ledger of the samples it consumed."""
        model = ModelConfig(
            width=16, heads=2, tower_layers=1, fused_layers=1, ngram_buckets=64, stem_channels=(4, 4), projection_dim=8
        )
        layout = {
            "pack_tokens": 256, "image_size": FEATURES.image_size, "image_patch": 16, "num_mels": FEATURES.num_mels,
            "audio_stack": 4,
        }  # fmt: skip
        config = {"model": to_json(model), "layout": layout, "classes": list(classes)}
        (self.folder / "config.json").write_bytes(canonical_json(config))
        torch.manual_seed(0)
        network = build_network({"model": to_json(model), "layout": layout, "classes": list(classes)})
        save_file(network.state_dict(), self.folder / "weights.safetensors")
        schema = pa.schema({"step": pa.int32(), "ids": pa.list_(pa.string())})
        ledger = write_parquet(table_of([{"step": 0, "ids": list(consumed)}], schema), self.folder / "ledger.parquet")
        files = {name: self.folder / name for name in ("config.json", "weights.safetensors")}
        return self.commit("model", files | {"ledger.parquet": ledger}, [release])

    def spec(self, config: EvaluationConfig = CONFIG) -> ReleaseSpec:
        """A spec whose recipe has an evaluation section."""
        return ReleaseSpec(
            schema="mm.release/1", release="r1", drops=[], parent=None, exclusions=[], policy={}, encoder={}, seed=0,
            num_shards=1, recipe={"evaluation": to_json(config)},
        )  # fmt: skip

    def evaluate(self, *, config: EvaluationConfig = CONFIG, force: bool = False) -> Committed:
        """Resolves, computes and commits the evaluation."""
        recipe = resolve_evaluation(self.store, self.spec(config), PARTITION, {})
        workdir = self.folder / f"work-{len(list(self.folder.iterdir()))}"
        workdir.mkdir()
        return materialize(
            self.store, recipe, lambda: compute_evaluation(self.store, recipe, workdir, self.settings), force=force
        )


@pytest.fixture
def world(store: Store, settings: Settings, tmp_path: Path) -> World:
    """An empty world on moto."""
    folder = tmp_path / "world"
    folder.mkdir()
    return World(store=store, settings=settings, folder=folder)


@pytest.fixture
def row() -> Callable[..., dict[str, Any]]:
    """``sample_row``."""
    return sample_row
