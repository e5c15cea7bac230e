"""Videos in packs and in the network: frames as patches with their times, and models that know none."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import safetensors.torch
import torch

from mm_assets.batching.collate import collate, layout_of, pack_samples
from mm_assets.batching.config import PlanConfig
from mm_assets.batching.loader import StepFacts
from mm_assets.batching.plan import read_planned
from mm_assets.batching.samples import Sample
from mm_assets.errors import StageError
from mm_assets.features.bootstrap import bootstrap_encoder_bytes
from mm_assets.features.config import EncoderConfig
from mm_assets.features.encoder import load_encoder
from mm_assets.features.towers import TowerEncoder
from mm_assets.store.tables import write_parquet
from mm_assets.training.augment import augment, part_lengths
from mm_assets.training.config import AugmentConfig, ModelConfig, TrainingConfig
from mm_assets.training.gradients import LaneTrainer
from mm_assets.training.network import Network
from mm_assets.training.objectives import class_weights
from mm_assets.training.predict import predict

SILENT_SHAPE = {"pack_tokens": 64, "image_size": 16, "image_patch": 8, "num_mels": 4, "audio_stack": 2}
SHAPE = SILENT_SHAPE | {"video_size": 16, "video_patch": 8}
LAYOUT, SILENT = layout_of(SHAPE), layout_of(SILENT_SHAPE)
CONFIG = ModelConfig(
    width=16, heads=2, tower_layers=1, fused_layers=1, ngrams=(2,), ngram_buckets=64, stem_channels=(4, 4),
    projection_dim=8, max_positions=16,
)  # fmt: skip


def clip(index: int, num_frames: int = 3, step_us: int = 250_000) -> np.ndarray:
    pixels = np.random.default_rng(index).integers(0, 256, (num_frames, 16 * 16 * 3)).astype(np.uint8)
    times = np.arange(num_frames, dtype="<i8")[:, None] * step_us
    return np.concatenate([times.view(np.uint8), pixels], axis=1)


def sample(index: int, video: np.ndarray | None = None) -> Sample:
    text = np.random.default_rng(100 + index).integers(4, 260, 6).astype(np.int32)
    return Sample(id=f"s{index}", tensors={"text": text} if video is None else {"text": text, "video": video})


def network(layout=LAYOUT) -> Network:
    torch.manual_seed(1)
    return Network(CONFIG, layout, ("a", "b")).eval()


def test_every_frame_is_its_patches_and_batches_are_repeatable() -> None:
    samples = [sample(0, clip(0)), sample(1), sample(2, clip(2, 5))]
    assert LAYOUT.tokens(samples[2]) == (6, 0, 0, 20)
    batch = collate(pack_samples(samples, LAYOUT), LAYOUT)
    assert batch.values["video"].shape == (8, 8 + 16 * 16 * 3)
    assert batch.presence_SM.tolist() == [[True, False, False, True], [True, False, False, False]] + [
        [True, False, False, True]
    ]
    assert part_lengths(batch, "video") == [3, 5]
    changed = [augment(batch, AugmentConfig(), seed=1, step=2, lane=3).values["video"] for _ in range(2)]
    assert torch.equal(*changed)
    assert not np.array_equal(changed[0].numpy(), batch.values["video"])


def test_a_model_sees_when_frames_are_shown_and_in_which_order() -> None:
    model = network()
    slow, reversed_ = clip(0), clip(0)
    reversed_[:, 8:] = reversed_[::-1, 8:].copy()
    made = [
        predict(model, [sample(0, video)], batch_size=1).embeddings["video"]
        for video in (slow, clip(0, step_us=500_000), reversed_)
    ]
    assert not np.allclose(made[0], made[1], atol=1e-4)
    assert not np.allclose(made[0], made[2], atol=1e-4)


def test_losses_reach_every_weight_of_video() -> None:
    model = network().train()
    batch = collate(pack_samples([sample(index, clip(index)) for index in range(3)], LAYOUT), LAYOUT)
    facts = StepFacts(step=0, num_samples=[3], groups=np.arange(3))
    trainer = LaneTrainer(network=model, config=TrainingConfig(), seed=1, class_weights_K=class_weights([1, 1], 1.0))
    (gradient,), _ = trainer.gradients([batch], [0], facts)
    parts = gradient.split([weight.numel() for weight in model.parameters()])
    reached = {name for (name, _), part in zip(model.named_parameters(), parts, strict=True) if part.any()}
    expected = {name for name, _ in model.named_parameters() if name.startswith(("embedders.video", "projections.vid"))}
    assert expected
    assert expected <= reached


def test_a_model_without_video_has_the_weights_it_always_had_and_ignores_videos() -> None:
    model = network(SILENT)
    assert not [name for name in model.state_dict() if "video" in name]
    assert model.kind_embedding.num_embeddings == 5
    with_video, without = (predict(model, [sample(0, video)], batch_size=1) for video in (clip(0), None))
    assert np.array_equal(with_video.probs_BK, without.probs_BK)
    assert not with_video.present["video"].any()


def test_towers_embed_videos_as_the_model_does() -> None:
    model = network()
    encoder = TowerEncoder(SimpleNamespace(**{name: getattr(CONFIG, name) for name in CONFIG.__slots__}), LAYOUT.shape)
    encoder.load_state_dict({name: value for name, value in model.state_dict().items() if name in encoder.state_dict()})
    clips = [clip(0), clip(1, 5)]
    with torch.inference_mode():
        made = encoder.eval().encode_column("video", pa.array([clip.tobytes() for clip in clips], pa.binary()), SHAPE)
    samples = [sample(index, clip) for index, clip in enumerate(clips)]
    expected = predict(model, samples, batch_size=2).embeddings["video"]
    np.testing.assert_allclose(made.numpy(), expected, atol=1e-5)
    deaf = TowerEncoder(SimpleNamespace(**{name: getattr(CONFIG, name) for name in CONFIG.__slots__}), SILENT.shape)
    with pytest.raises(StageError, match="has no tower for video: expected one of text, image, audio"):
        deaf.encode_column("video", pa.array([clips[0].tobytes()], pa.binary()), SHAPE)


def test_an_encoder_that_was_made_before_video_embeds_everything_else() -> None:
    tensors = safetensors.torch.load(bootstrap_encoder_bytes(EncoderConfig(dim=8)))
    older = {name: value for name, value in tensors.items() if not name.startswith("video.")}
    encoder = load_encoder(safetensors.torch.save(older), dim=8, digest="d")
    assert encoder.dim == 8
    with pytest.raises(StageError, match="encoder: does not know video: expected one of text, image, audio"):
        encoder.encode_column("video", pa.array([clip(0).tobytes()], pa.binary()), SHAPE)


def test_a_plan_reserves_the_patches_of_every_frame(tmp_path: Path) -> None:
    frames = [0, 3, 8, 1]
    table = pa.table(
        {
            "id": ["a", "b", "c", "d"], "split": ["train"] * 4, "selected": [True] * 4, "has_image": [False] * 4,
            "text_tokens": pa.array([5] * 4, pa.int32()), "audio_frames": pa.array([0] * 4, pa.int32()),
            "video_frames": pa.array(frames, pa.int32()),
        }
    )  # fmt: skip
    samples = write_parquet(table, tmp_path / "samples.parquet")
    planned = read_planned(samples, PlanConfig(), image_size=64, video_size=64)
    by_id = dict(zip(planned.ids.to_pylist(), planned.tokens["video"].tolist(), strict=True))
    assert by_id == {"a": 0, "b": 48, "c": 128, "d": 16}
