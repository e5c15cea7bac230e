"""A frozen release and a small real network, committed by hand: evaluation depends on their formats alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from mm_assets.configurations import SMOKE
from mm_assets.evaluation.config import CorruptionConfig, EvaluationConfig
from mm_assets.features.config import FeaturesConfig
from mm_assets.features.schema import tensors_schema
from mm_assets.identity.canonical import canonical_json, digest_json, to_json
from mm_assets.materialize import Workspace
from mm_assets.release.shards import Shard, write_shards
from mm_assets.settings import Settings
from mm_assets.store.action import Action
from mm_assets.store.commit import Attempt, Committed
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import Store
from mm_assets.store.tables import table_of, write_arrow, write_parquet
from mm_assets.training.config import ModelConfig
from mm_assets.training.network import build_network
from mm_assets_tests.by_hand import make_by_hand, open_by_hand

PARTITION = Partition(release="r1")
COLUMNS = {
    "id": pa.string(), "shard": pa.int32(), "row": pa.int32(), "split": pa.string(),
    "selected": pa.bool_(), "label": pa.string(), "language": pa.string(), "group": pa.string(), "has_text": pa.bool_(),
    "has_image": pa.bool_(), "has_audio": pa.bool_(), "has_video": pa.bool_(), "text_tokens": pa.int32(),
    "audio_frames": pa.int32(), "video_frames": pa.int32(),
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
        "id": f"zoo/d1/{index:04d}", "shard": 0, "row": index, "split": split, "selected": True,
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

    workspace: Workspace
    folder: Path

    @property
    def store(self) -> Store:
        return self.workspace.store

    def release(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Commits a dataset release of one shard."""
        arrow = write_arrow(
            table_of([tensors(row) for row in rows], tensors_schema(FEATURES)), self.folder / "tensors.arrow"
        )
        nothing = digest_json("not read")
        shard = Shard(
            generation=0, samples=nothing, signals=nothing, embedding_signals=nothing,
            tensors=self.store.put_file(arrow),
        )  # fmt: skip
        counted = [
            {
                "has_video": False,
                "video_frames": 0,
                **row,
                "text_tokens": 10 if row["has_text"] else 0,
                "audio_frames": 40 if row["has_audio"] else 0,
            }  # fmt: skip
            for row in rows
        ]
        files = {
            "samples.parquet": write_parquet(
                table_of(counted, pa.schema(COLUMNS.items())), self.folder / "samples.parquet"
            ),
            "shards.json": write_shards([shard], self.folder / "shards.json"),
        }
        make_by_hand(self.workspace, "dataset_release", "r1", files)

    def model(self, classes: Sequence[str], consumed: Sequence[str] = ()) -> None:
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
        write_parquet(table_of([{"step": 0, "ids": list(consumed)}], schema), self.folder / "ledger.parquet")
        (self.folder / "plan.parquet").write_bytes(b"not read here")
        make_by_hand(self.workspace, "batch_plan", "r1", {"plan.parquet": self.folder / "plan.parquet"})
        self.commit_model()

    def commit_model(self) -> None:
        """Commits the files of a model as they are in the folder."""
        names = ("config.json", "weights.safetensors", "ledger.parquet")
        make_by_hand(self.workspace, "model", "r1", {name: self.folder / name for name in names})

    def action(self, config: EvaluationConfig = CONFIG) -> Action:
        """What the evaluation would be made from now, with another configuration than the release's."""
        action = self.workspace.resolve("evaluation", PARTITION, {})
        return replace(action, params={**action.params, "config": to_json(config)})

    def evaluate(self, *, config: EvaluationConfig | None = None, force: bool = False) -> Committed:
        """Resolves, computes and commits the evaluation."""
        if config is None:
            return self.workspace.run("evaluation", PARTITION, environment={}, force=force)
        action = self.action(config)
        workdir = self.folder / f"work-{len(list(self.folder.iterdir()))}"
        workdir.mkdir()
        attempt = Attempt(self.store, action, PARTITION)
        return attempt.commit_result(self.workspace.compute(action, PARTITION, workdir))


@pytest.fixture
def world(store: Store, settings: Settings, tmp_path: Path) -> World:
    """Release r1 is open on moto, and nothing is in it."""
    folder = tmp_path / "world"
    folder.mkdir()
    open_by_hand(store, config=replace(SMOKE, evaluation=CONFIG))
    return World(workspace=Workspace(settings, store), folder=folder)


@pytest.fixture
def row() -> Callable[..., dict[str, Any]]:
    """``sample_row``."""
    return sample_row
