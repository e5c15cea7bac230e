"""The gradient of every lane at one step, in two halves around one exchange.

Label and text losses are a lane's own. Modalities are aligned among all samples of the step: lanes hand over their
representations, every process computes the same loss of all of them, and each lane goes on backwards from its share of
that loss's gradient. What is exchanged is in the order of lanes, so the number of processes changes no bit.

Legend of shapes: S samples of a lane, T of the step, M modalities, D projection.

Source of the two halves: GradCache (Gao et al. 2021, arXiv:2101.06983), here without a second forward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mm_assets.batching.collate import Batch
from mm_assets.batching.loader import StepFacts
from mm_assets.training.augment import augment
from mm_assets.training.config import TrainingConfig
from mm_assets.training.lanes import gather_lanes, seed_lane
from mm_assets.training.ledger import ledger_entry
from mm_assets.training.network import Network, Outputs
from mm_assets.training.objectives import contrastive_loss, label_loss, targets_of, text_loss

LOSSES = ("loss", "label_loss", "contrastive_loss", "text_loss")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lane:
    """A lane's forward pass; without outputs where it has no samples. ``loss`` is that of its own objectives."""

    batch: Batch
    outputs: Outputs | None
    loss: Tensor
    values: tuple[float, float]


def lane_gradients(
    network: Network,
    batches: Sequence[Batch],
    lanes: Sequence[int],
    facts: StepFacts,
    *,
    config: TrainingConfig,
    seed: int,
    class_weights_K: Tensor,
) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """Per lane of this process its part of the step's gradient as one vector, and what it consumed with its losses.

    Args:
        network: The model, in training mode.
        batches: One per lane of this process.
        lanes: Their numbers.
        facts: About the whole step.
        config: The training's.
        seed: The run's.
        class_weights_K: Weight of a sample by its class.
    """
    passes = [
        _forward(network, batch, config, class_weights_K, key=(seed, facts.step, lane))
        for lane, batch in zip(lanes, batches, strict=True)
    ]
    embedded_SMD = gather_lanes([_embedded(network, done, max(facts.num_samples)) for done in passes])
    aligned = _align(
        network, torch.cat([embedded_SMD[lane, :count] for lane, count in enumerate(facts.num_samples)]), facts
    )
    (config.loss.contrastive * aligned.loss).backward()
    gradients: list[Tensor] = []
    consumed: list[dict[str, Any]] = []
    firsts = np.cumsum([0, *facts.num_samples])
    for lane, done in zip(lanes, passes, strict=True):
        network.zero_grad(set_to_none=True)
        if done.outputs is not None:
            share = facts.num_samples[lane] / sum(facts.num_samples)
            _backward(done, done.outputs, aligned, share=share, first=int(firsts[lane]))
        if lane == 0:
            # The temperature is of no lane: its gradient is counted once.
            network.logit_scale.grad = aligned.scale.grad
        gradients.append(_flat_gradient(network))
        consumed.append(_entry(done, lane, facts.step, float(aligned.loss.detach()), config))
    return gradients, consumed


@dataclass(frozen=True, kw_only=True, slots=True)
class _Aligned:
    """The loss over all samples of the step, and the tensors that its gradient is left in."""

    loss: Tensor
    embedded_TMD: Tensor
    scale: Tensor


def _align(network: Network, embedded_TMD: Tensor, facts: StepFacts) -> _Aligned:
    is_there_TM = embedded_TMD[..., -1] > 0
    leaf_TMD = embedded_TMD[..., :-1].clone().requires_grad_()
    scale = network.logit_scale.detach().clone().requires_grad_()
    groups_T = torch.from_numpy(facts.groups).to(leaf_TMD.device)
    loss = contrastive_loss(leaf_TMD, is_there_TM, groups_T, scale)
    return _Aligned(loss=loss, embedded_TMD=leaf_TMD, scale=scale)


def _forward(
    network: Network, batch: Batch, config: TrainingConfig, class_weights_K: Tensor, *, key: tuple[int, int, int]
) -> _Lane:
    if not batch.ids:
        return _Lane(batch=batch, outputs=None, loss=torch.zeros(()), values=(0.0, 0.0))
    device = network.logit_scale.device
    seed_lane(*key)
    seed, step, lane = key
    inputs = augment(batch, config.augment, seed=seed, step=step, lane=lane, device=device)
    outputs = network(inputs)
    label = label_loss(outputs.logits_SK, inputs.labels_S, class_weights_K, smoothing=config.loss.label_smoothing)
    text = text_loss(outputs, inputs, targets_of(batch, device))
    return _Lane(
        batch=batch,
        outputs=outputs,
        loss=config.loss.label * label + config.loss.text * text,
        values=(float(label.detach()), float(text.detach())),
    )


def _embedded(network: Network, done: _Lane, num_rows: int) -> Tensor:
    """[``num_rows``, M, D + 1]: a lane's representations, with 1 behind those that are there."""
    names = network.layout.modalities
    dim = network.config.projection_dim
    found = torch.zeros((num_rows, len(names), dim + 1), device=network.logit_scale.device)
    if done.outputs is not None:
        for number, name in enumerate(names):
            rows_R, embeddings_RD = done.outputs.towers[name]
            found[rows_R, number, :dim] = embeddings_RD.detach()
            found[rows_R, number, dim] = 1.0
    return found


def _backward(done: _Lane, outputs: Outputs, aligned: _Aligned, *, share: float, first: int) -> None:
    gradient_TMD = aligned.embedded_TMD.grad
    assert gradient_TMD is not None
    tensors, gradients = [done.loss * share], [torch.ones_like(done.loss)]
    for number, (rows_R, embeddings_RD) in enumerate(outputs.towers.values()):
        if len(rows_R):
            tensors.append(embeddings_RD)
            gradients.append(gradient_TMD[first + rows_R, number])
    torch.autograd.backward(tensors, gradients)


def _entry(done: _Lane, lane: int, step: int, aligned: float, config: TrainingConfig) -> dict[str, Any]:
    label, text = done.values
    contrastive = aligned if done.batch.ids else 0.0
    total = config.loss.label * label + config.loss.contrastive * contrastive + config.loss.text * text
    return ledger_entry(step, lane, done.batch.ids) | dict(zip(LOSSES, (total, label, contrastive, text), strict=True))


def _flat_gradient(network: Network) -> Tensor:
    return torch.cat(
        [
            torch.zeros_like(parameter).reshape(-1) if parameter.grad is None else parameter.grad.reshape(-1)
            for parameter in network.parameters()
        ]
    )
