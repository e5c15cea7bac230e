"""Training on a device: every tensor of a step is on it, checked with tensors that have a device and no values."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mm_assets.batching.collate import Batch, collate, layout_of, pack_samples
from mm_assets.batching.loader import StepFacts
from mm_assets.batching.samples import Sample
from mm_assets.errors import StageError
from mm_assets.modalities.device import device_of, rank_device
from mm_assets.training.config import ModelConfig, TrainingConfig
from mm_assets.training.gradients import LaneTrainer
from mm_assets.training.lanes import world_size_of
from mm_assets.training.network import Network

LAYOUT = layout_of(
    {
        "pack_tokens": 128, "image_size": 16, "image_patch": 8, "num_mels": 4, "audio_stack": 2, "video_size": 16,
        "video_patch": 8, "places": 3,
    }
)  # fmt: skip
CONFIG = ModelConfig(
    width=16, heads=2, tower_layers=1, fused_layers=1, ngrams=(2,), ngram_buckets=64, stem_channels=(4, 4),
    projection_dim=8, max_positions=16,
)  # fmt: skip


def make_sample(index: int) -> Sample:
    rng = np.random.default_rng(index)
    # A time in microseconds and a picture per frame.
    frames = rng.integers(0, 256, (2, 8 + 16 * 16 * 3)).astype(np.uint8)
    tensors = {
        "text": rng.integers(4, 260, 5 + index).astype(np.int32),
        "image": rng.integers(0, 256, (16, 16, 3)).astype(np.uint8),
        "audio": rng.normal(size=(7, 4)).astype(np.float32),
        "video": frames,
    }
    return Sample(id=f"s{index}", tensors={name: tensor for name, tensor in tensors.items() if index or name != "text"})


def batches() -> list[Batch]:
    return [collate(pack_samples([make_sample(index) for index in own], LAYOUT), LAYOUT) for own in ((0, 1), (2, 3, 4))]


FACTS = StepFacts(step=0, num_samples=[2, 3], groups=np.arange(5))


def trainer_of(network: Network, device: str) -> LaneTrainer:
    weights = torch.ones(2, device=device)
    return LaneTrainer(network=network.train(), config=TrainingConfig(), seed=1, class_weights_K=weights)


def test_a_forward_pass_and_its_losses_stay_on_the_gpu() -> None:
    network, made = Network(CONFIG, LAYOUT, ("a", "b")), batches()
    # Tensors of this mode have a device and a shape: where two devices meet, an operation fails as it would on them.
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for module in network.modules():
            for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                there = mode.from_tensor(tensor.detach()).to("cuda:0")
                setattr(module, name, torch.nn.Parameter(there) if isinstance(tensor, torch.nn.Parameter) else there)
        trainer = trainer_of(network, "cuda:0")
        for lane, batch in enumerate(made):
            done = trainer.forward(batch, step=0, lane=lane)
            for loss in (done.label, done.text, *done.outputs.towers.values(), done.outputs.logits_SK):
                assert str(loss.device) == "cuda:0"


def test_a_whole_step_needs_no_value_of_a_tensor_to_go_on() -> None:
    network, made = Network(CONFIG, LAYOUT, ("a", "b")).to("meta"), batches()
    trainer = trainer_of(network, "meta")
    passes = [trainer.forward(batch, step=0, lane=lane) for lane, batch in enumerate(made)]
    aligned = trainer.align(passes, made, FACTS)
    for done, first in zip(passes, (0, 2), strict=True):
        trainer.backward(done, aligned, share=0.5, first=first)
    reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    # The temperature's gradient is left in the alignment: it is of no lane.
    assert reached == {name for name, _ in network.named_parameters()} - {"logit_scale"}
    assert aligned.scale.grad is not None


@pytest.mark.parametrize(
    ("placement", "lanes", "expected"),
    [
        ({"cpus": 1}, 4, 1),
        ({"cpus": 3}, 4, 2),
        ({"cpus": 64}, 4, 4),
        ({"cpus": 4, "world_size": 1}, 4, 1),
        ({"cpus": 1, "accelerators": 2}, 4, 2),
        ({"cpus": 1, "accelerators": 2, "world_size": 2}, 4, 2),
    ],
)
def test_one_process_trains_per_accelerator_or_as_processors_allow(
    placement: dict[str, int], lanes: int, expected: int
) -> None:
    assert world_size_of(placement, lanes) == expected


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        ({"world_size": 3}, "4 lanes cannot be shared by 3 processes: expected a number of processes that divides 4"),
        ({"accelerators": 8}, "4 lanes cannot be shared by 8 processes"),
        ({"accelerators": 2, "world_size": 4}, "one process per accelerator: expected MM_WORLD_SIZE unset or 2"),
    ],
)
def test_a_world_size_that_does_not_fit_names_both_numbers(placement: dict[str, int], message: str) -> None:
    with pytest.raises(StageError, match=message):
        world_size_of(placement, 4)


def test_accelerators_that_are_missing_or_would_stay_idle_are_errors() -> None:
    assert device_of("evaluation", {}) == torch.device("cpu")
    with pytest.raises(StageError, match="evaluation: 3 of its accelerators would stay idle: expected 1, got 4"):
        device_of("evaluation", {"accelerators": 4})
    if not torch.cuda.is_available():
        with pytest.raises(StageError, match="model: accelerators are missing: expected 2, as its resources ask for, "):
            rank_device("model", 2, rank=1)
