"""The gradient of every lane at one step, in two halves around one exchange.

Label and text losses are a lane's own. Modalities are aligned among all samples of the step: lanes hand over their
representations, every process computes the same loss of all of them, and each lane goes on backwards from its share of
that loss's gradient. What is exchanged is in the order of lanes, so the number of processes changes no bit.

Legend of shapes: S samples of a lane, T of the step, R of a lane with a modality, M modalities, D projection.

Source of the two halves: GradCache (Gao et al. 2021, arXiv:2101.06983), here without a second forward pass.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mm_assets.batching.collate import Batch
from mm_assets.batching.loader import StepFacts
from mm_assets.training.augment import augment
from mm_assets.training.config import TrainingConfig
from mm_assets.training.lanes import gather_lanes, seed_lane
from mm_assets.training.ledger import ledger_entry
from mm_assets.training.network import Network, Outputs, in_float32
from mm_assets.training.objectives import contrastive_loss, label_loss, targets_of, text_loss
from mm_assets.training.tokens import Inputs

LOSSES = ("loss", "label_loss", "contrastive_loss", "text_loss")


@dataclass(frozen=True, kw_only=True, slots=True)
class Forward:
    """A lane's forward pass, and the losses that are its own."""

    inputs: Inputs
    outputs: Outputs
    label: Tensor
    text: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Aligned:
    """The loss over all samples of a step, and the tensors in which its gradient is left."""

    loss: Tensor
    embedded_TMD: Tensor
    scale: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneTrainer:
    """What the gradients of a run's lanes are computed with.

    Attributes:
        network: The model, in training mode, on its device.
        config: The training's.
        seed: The run's.
        class_weights_K: Weight of a sample by its class, on the model's device.
    """

    network: Network
    config: TrainingConfig
    seed: int
    class_weights_K: Tensor

    def gradients(
        self, batches: Sequence[Batch], lanes: Sequence[int], facts: StepFacts
    ) -> tuple[list[Tensor], list[dict[str, Any]]]:
        """Per lane of this process its part of the step's gradient as one vector, and what it consumed.

        Args:
            batches: One per lane of this process.
            lanes: Their numbers.
            facts: About the whole step.
        """
        passes = [
            self.forward(batch, step=facts.step, lane=lane) if batch.ids else None
            for lane, batch in zip(lanes, batches, strict=True)
        ]
        aligned = self.align(passes, batches, facts)
        firsts = np.cumsum([0, *facts.num_samples])
        gradients: list[Tensor] = []
        for lane, done in zip(lanes, passes, strict=True):
            self.network.zero_grad(set_to_none=True)
            if done is not None:
                share = facts.num_samples[lane] / sum(facts.num_samples)
                self.backward(done, aligned, share=share, first=int(firsts[lane]))
            if lane == 0:
                # The temperature is of no lane: its gradient is counted once.
                self.network.logit_scale.grad = aligned.scale.grad
            gradients.append(_flat_gradient(self.network))
        entries = [
            ledger_entry(facts.step, lane, batch.ids) | self._losses(done, aligned)
            for lane, batch, done in zip(lanes, batches, passes, strict=True)
        ]
        return gradients, entries

    def forward(self, batch: Batch, *, step: int, lane: int) -> Forward:
        """A lane's forward pass and own losses; all that is random in it is keyed by seed, step and lane."""
        device = self.network.logit_scale.device
        seed_lane(self.seed, step, lane)
        inputs = augment(batch, self.config.augment, seed=self.seed, step=step, lane=lane, device=device)
        is_half = self.config.precision == "bf16"
        with torch.autocast(device.type, torch.bfloat16) if is_half else nullcontext():
            outputs = in_float32(self.network(inputs))
        smoothing = self.config.loss.label_smoothing
        return Forward(
            inputs=inputs,
            outputs=outputs,
            label=label_loss(outputs.logits_SK, inputs, self.class_weights_K, smoothing=smoothing),
            text=text_loss(outputs, inputs, targets_of(batch, device)),
        )

    def align(self, passes: Sequence[Forward | None], batches: Sequence[Batch], facts: StepFacts) -> Aligned:
        """The alignment of all samples of the step, with its gradient."""
        most = max(facts.num_samples)
        embedded = gather_lanes([self._embedded(done, most) for done in passes])
        present = gather_lanes([torch.from_numpy(_padded(batch.presence_SM, most)) for batch in batches]).numpy()
        is_there_TM = np.concatenate([present[lane, :count] for lane, count in enumerate(facts.num_samples)])
        embedded_TMD = torch.cat([embedded[lane, :count] for lane, count in enumerate(facts.num_samples)])
        embedded_TMD = embedded_TMD.requires_grad_()
        scale = self.network.logit_scale.detach().clone().requires_grad_()
        loss = contrastive_loss(embedded_TMD, is_there_TM, facts.groups, scale)
        (self.config.loss.contrastive * loss).backward()
        return Aligned(loss=loss, embedded_TMD=embedded_TMD, scale=scale)

    def backward(self, done: Forward, aligned: Aligned, *, share: float, first: int) -> None:
        """A lane's gradient: its own losses by its share of the step's samples, and its rows of the alignment's.

        Args:
            done: Its forward pass.
            aligned: The step's alignment.
            share: Of the step's samples.
            first: Number of its first sample among those of the step.
        """
        gradient_TMD = aligned.embedded_TMD.grad
        assert gradient_TMD is not None
        loss = (self.config.loss.label * done.label + self.config.loss.text * done.text) * share
        tensors, gradients = [loss], [torch.ones_like(loss)]
        for number, (name, embedded_RD) in enumerate(done.outputs.towers.items()):
            tensors.append(embedded_RD)
            gradients.append(gradient_TMD[first + done.inputs.parts[name].rows_R, number])
        torch.autograd.backward(tensors, gradients)

    def _embedded(self, done: Forward | None, num_rows: int) -> Tensor:
        """[``num_rows``, M, D]: a lane's representations; zeros where there is none."""
        network = self.network
        shape = (num_rows, len(network.layout.modalities), network.config.projection_dim)
        found = torch.zeros(shape, device=network.logit_scale.device)
        if done is not None:
            for number, (name, embedded_RD) in enumerate(done.outputs.towers.items()):
                found[done.inputs.parts[name].rows_R, number] = embedded_RD.detach().float()
        return found

    def _losses(self, done: Forward | None, aligned: Aligned) -> dict[str, float]:
        if done is None:
            return dict.fromkeys(LOSSES, 0.0)
        weights = self.config.loss
        label, contrastive, text = (float(loss.detach()) for loss in (done.label, aligned.loss, done.text))
        total = weights.label * label + weights.contrastive * contrastive + weights.text * text
        return dict(zip(LOSSES, (total, label, contrastive, text), strict=True))


def _padded(presence_SM: npt.NDArray[np.bool_], num_rows: int) -> npt.NDArray[np.bool_]:
    return np.pad(presence_SM, ((0, num_rows - len(presence_SM)), (0, 0)))


def _flat_gradient(network: Network) -> Tensor:
    return torch.cat(
        [
            torch.zeros_like(parameter).reshape(-1) if parameter.grad is None else parameter.grad.reshape(-1)
            for parameter in network.parameters()
        ]
    )
