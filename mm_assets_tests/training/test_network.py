"""Who sees whom: each law is a change of one input and a look at what it may not move."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mm_assets.batching.collate import KIND_OF, Slot, collate, layout_of, pack_samples
from mm_assets.batching.loader import StepFacts
from mm_assets.batching.samples import Sample
from mm_assets.training.config import AugmentConfig, ModelConfig, TrainingConfig
from mm_assets.training.gradients import LaneTrainer
from mm_assets.training.network import Network, Outputs
from mm_assets.training.objectives import class_weights, contrastive_loss, label_loss
from mm_assets.training.predict import predict
from mm_assets.training.tokens import Inputs, to_inputs

LAYOUT = layout_of({"pack_tokens": 64, "image_size": 16, "image_patch": 8, "num_mels": 4, "audio_stack": 2})
CONFIG = ModelConfig(
    width=16, heads=2, tower_layers=2, fused_layers=2, ngrams=(2, 3), ngram_buckets=64, stem_channels=(4, 4),
    projection_dim=8, max_positions=16, dropout=0.0,
)  # fmt: skip
#: Nothing at random, so that lanes can be compared.
STILL = TrainingConfig(
    model=CONFIG,
    augment=AugmentConfig(
        flip=0.0, shift=0, colour=0.0, audio_noise=0.0, audio_mask=0.0, byte_mask=0.0, modality_dropout=0.0
    ),
)


def make_sample(index: int, *, text: bool = True, image: bool = True, audio: bool = True) -> Sample:
    rng = np.random.default_rng(index)
    tensors = {
        "text": rng.integers(4, 260, 5 + index % 3).astype(np.int32) if text else None,
        "image": rng.integers(0, 256, (16, 16, 3)).astype(np.uint8) if image else None,
        "audio": rng.normal(size=(7, 4)).astype(np.float32) if audio else None,
    }
    return Sample(id=f"s{index}", tensors={name: tensor for name, tensor in tensors.items() if tensor is not None})


def with_tensors(sample: Sample, **tensors: np.ndarray) -> Sample:
    return replace(sample, tensors={**sample.tensors, **tensors})


@pytest.fixture
def network() -> Network:
    torch.manual_seed(1)
    return Network(CONFIG, LAYOUT, ("a", "b", "c")).eval()


def run(network: Network, samples: list[Sample]) -> tuple[Outputs, Inputs]:
    inputs = to_inputs(collate(pack_samples(samples, LAYOUT), LAYOUT))
    with torch.no_grad():
        return network(inputs), inputs


def test_later_text_never_changes_earlier_text_logits(network: Network) -> None:
    sample = make_sample(0)
    before, _ = run(network, [sample])
    for place in range(1, len(sample.tensors["text"])):
        changed = sample.tensors["text"].copy()
        changed[place] = 4 + (changed[place] + 17) % 250
        after, _ = run(network, [with_tensors(sample, text=changed)])
        assert torch.equal(before.next_XV["text"][:place], after.next_XV["text"][:place])
        assert not torch.equal(before.next_XV["text"][place], after.next_XV["text"][place])


@pytest.mark.parametrize("modality", ["text", "image", "audio"])
def test_classifier_and_later_text_see_every_modality(network: Network, modality: str) -> None:
    sample, other = make_sample(0), make_sample(3)
    before, _ = run(network, [sample])
    after, _ = run(network, [with_tensors(sample, **{modality: other.tensors[modality]})])
    assert not torch.allclose(before.logits_SK, after.logits_SK, atol=1e-6)
    assert not torch.allclose(before.next_XV["text"][-1], after.next_XV["text"][-1], atol=1e-6)


def test_towers_do_not_see_other_modalities(network: Network) -> None:
    sample, other = make_sample(0), make_sample(3)
    before, _ = run(network, [sample])
    for kept in sample.tensors:
        changed = with_tensors(sample, **{name: tensor for name, tensor in other.tensors.items() if name != kept})
        after, _ = run(network, [changed])
        for name in sample.tensors:
            is_same = torch.allclose(before.towers[name], after.towers[name], atol=1e-6)
            assert is_same == (name == kept)


def test_a_sample_does_not_depend_on_its_neighbours_in_the_pack(network: Network) -> None:
    samples = [make_sample(index, image=index % 2 == 0, audio=index % 3 == 0) for index in range(6)]
    together = predict(network, samples, batch_size=6)
    for index, sample in enumerate(samples):
        alone = predict(network, [sample], batch_size=1)
        np.testing.assert_allclose(together.probs_BK[index], alone.probs_BK[0], atol=1e-5)
        for name in ("text", "image", "audio"):
            np.testing.assert_allclose(together.embeddings[name][index], alone.embeddings[name][0], atol=1e-5)
            assert together.present[name][index] == alone.present[name][0]


def test_a_hidden_modality_is_not_seen_by_the_classifier(network: Network) -> None:
    sample, other = make_sample(0), make_sample(3)
    for column, field in enumerate(("text", "image", "audio")):
        logits: list[torch.Tensor] = []
        for changed in (sample, with_tensors(sample, **{field: other.tensors[field]})):
            inputs = to_inputs(collate(pack_samples([changed], LAYOUT), LAYOUT))
            visible = inputs.presence_SM.clone()
            visible[:, column] = False
            with torch.no_grad():
                logits.append(network(replace(inputs, visible_SM=visible)).logits_SK)
        assert torch.allclose(logits[0], logits[1], atol=1e-6)


def test_a_dead_sample_keeps_its_slot_and_changes_nothing(network: Network) -> None:
    samples = [make_sample(index) for index in range(3)]
    pack = pack_samples(samples, LAYOUT)[0]
    dead = [pack[0], replace(pack[1], sample=None), pack[2]]
    batch = collate([dead], LAYOUT)
    assert batch.ids == ("s0", "s1", "s2")
    assert not batch.presence_SM[1].any()
    with torch.no_grad():
        outputs = network(to_inputs(batch))
    whole, _ = run(network, samples)
    for index in (0, 2):
        torch.testing.assert_close(outputs.logits_SK[index], whole.logits_SK[index], atol=1e-5, rtol=0)


def test_samples_without_any_modality_still_get_probabilities(network: Network) -> None:
    empty = Sample(id="e", tensors={})
    predictions = predict(network, [empty, make_sample(1)], batch_size=4)
    np.testing.assert_allclose(predictions.probs_BK.sum(axis=1), 1.0, atol=1e-6)
    assert not any(present[0] for present in predictions.present.values())


@pytest.mark.parametrize("kinds", [("text",), ("image",), ("audio",), ("text", "image", "audio")])
def test_losses_are_finite_and_reach_the_weights_for_any_modalities(network: Network, kinds: tuple[str, ...]) -> None:
    flags = {name: name in kinds for name in ("text", "image", "audio")}
    (gradient,), (entry,) = gradients_of(network, [[make_sample(index, **flags) for index in range(3)]])
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient.abs().sum()) > 0
    assert (entry["contrastive_loss"] > 0) == (len(kinds) > 1)
    assert (entry["text_loss"] > 0) == ("text" in kinds)


def gradients_of(
    network: Network, lanes: list[list[Sample]], config: TrainingConfig = STILL, groups: list[int] | None = None
) -> tuple[list[torch.Tensor], list[dict[str, Any]]]:
    """Gradients and entries of a step whose lanes hold these samples, all of the second class."""
    batches = [
        collate([[replace(slot, label=1) for slot in pack] for pack in pack_samples(samples, LAYOUT)], LAYOUT)
        for samples in lanes
    ]
    counts = [len(samples) for samples in lanes]
    own = list(range(sum(counts))) if groups is None else groups
    facts = StepFacts(step=0, num_samples=counts, groups=np.array(own))
    network.train()
    trainer = LaneTrainer(network=network, config=config, seed=1, class_weights_K=class_weights([3, 4, 5], 1.0))
    return trainer.gradients(batches, range(len(lanes)), facts)


def test_lanes_are_aligned_with_one_another_and_weigh_by_their_samples(network: Network) -> None:
    # Texts of one length: a lane's next-token loss is a mean over its tokens.
    samples = [make_sample(index) for index in range(0, 15, 3)]
    (whole,), (entry,) = gradients_of(network, [samples])
    parts, entries = gradients_of(network, [samples[:1], samples[1:], []])
    # However samples are dealt to lanes, the sum of the parts is the gradient of them all.
    torch.testing.assert_close(sum(parts), whole, atol=1e-5, rtol=1e-4)
    assert entries[0]["contrastive_loss"] == pytest.approx(entry["contrastive_loss"], abs=1e-5)
    assert entries[2]["num_samples"] == 0
    assert not parts[2].any()


def test_bfloat16_gives_about_the_same_gradient_in_float32(network: Network) -> None:
    samples = [make_sample(index) for index in range(4)]
    (full,), _ = gradients_of(network, [samples])
    (half,), (entry,) = gradients_of(network, [samples], replace(STILL, precision="bf16"))
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    assert float(torch.nn.functional.cosine_similarity(half, full, dim=0)) > 0.99
    assert entry["loss"] > 0


def test_samples_of_a_group_are_not_each_others_negatives() -> None:
    unit = torch.eye(4).unsqueeze(1).expand(4, 2, 4).clone()
    unit[1] = unit[0]
    there, scale = np.ones((4, 2), np.bool_), torch.tensor(4.0)
    apart = contrastive_loss(unit, there, np.arange(4), scale)
    together = contrastive_loss(unit, there, np.array([0, 0, 2, 3]), scale)
    assert float(together) < 0.01 < 0.3 < float(apart)


def test_network_without_classes_has_no_label_loss(network: Network) -> None:
    unlabelled = Network(CONFIG, LAYOUT, ()).eval()
    outputs, inputs = run(unlabelled, [make_sample(0)])
    assert outputs.logits_SK.shape == (1, 0)
    assert float(label_loss(outputs.logits_SK, inputs, class_weights([], 1.0), smoothing=0.1)) == 0.0


def test_matching_embeddings_have_the_smaller_contrastive_loss() -> None:
    unit, scale = torch.eye(4), torch.tensor(2.0)
    there, apart = np.array([[True, True, False]] * 4), np.arange(4)
    matching = contrastive_loss(torch.stack([unit, unit, unit], dim=1), there, apart, scale)
    mixed = contrastive_loss(torch.stack([unit, unit.roll(1, 0), unit], dim=1), there, apart, scale)
    assert float(matching) < 0.5 < float(mixed)


def test_balanced_class_weights_average_to_one_over_the_samples() -> None:
    weights = class_weights([10, 90], 1.0)
    assert float(weights[0] / weights[1]) == pytest.approx(9.0)
    assert float(10 * weights[0] + 90 * weights[1]) == pytest.approx(100.0)


def test_padding_and_kinds_follow_the_documented_order() -> None:
    batch = collate(pack_samples([make_sample(0)], LAYOUT), LAYOUT)
    kinds = batch.kinds_PT[0]
    assert kinds[0] == 1
    assert kinds[1:5].tolist() == [KIND_OF["image"]] * 4
    assert kinds[5:9].tolist() == [KIND_OF["audio"]] * 4
    assert kinds[9:14].tolist() == [KIND_OF["text"]] * 5
    assert not kinds[14:].any()
    assert isinstance(pack_samples([make_sample(0)], LAYOUT)[0][0], Slot)


def test_a_network_without_classes_still_embeds() -> None:
    predictions = predict(Network(CONFIG, LAYOUT, ()), [make_sample(0)], batch_size=2)
    assert predictions.probs_BK.shape == (1, 0)
    assert np.linalg.norm(predictions.embeddings["audio"][0]) == pytest.approx(1.0, abs=1e-5)
