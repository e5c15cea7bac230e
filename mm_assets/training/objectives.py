"""The three objectives. Each is zero, with a gradient of zero, where a batch has nothing for it.

Legend of shapes: S samples, K classes, R samples with a modality, D projection, X tokens of a causal modality.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from mm_assets.batching.collate import KIND_OF, NO_LABEL, Batch
from mm_assets.modalities.table import CAUSAL
from mm_assets.training.config import LossConfig
from mm_assets.training.network import Inputs, Network, Outputs

MAX_LOGIT_SCALE = 4.6  # exp: 100, the ceiling of CLIP (Radford et al. 2021, arXiv:2103.00020)


@dataclass(frozen=True, kw_only=True, slots=True)
class Losses:
    """Scalars of one batch; ``total`` is their weighted sum."""

    total: Tensor
    label: Tensor
    contrastive: Tensor
    text: Tensor


def compute_losses(
    network: Network, inputs: Inputs, targets: Mapping[str, Tensor], class_weights_K: Tensor, config: LossConfig
) -> Losses:
    """One forward pass and its losses.

    Args:
        network: The model.
        inputs: What it sees.
        targets: Tokens of the causal modalities as they are, where the input's may be masked.
        class_weights_K: Weight of a sample by its class; float32.
        config: Weights of the objectives.
    """
    outputs = network(inputs)
    label = label_loss(outputs.logits_SK, inputs.labels_S, class_weights_K, smoothing=config.label_smoothing)
    contrastive = contrastive_loss(outputs.towers, network.logit_scale)
    text = text_loss(outputs, inputs, targets)
    total = config.label * label + config.contrastive * contrastive + config.text * text
    return Losses(total=total, label=label, contrastive=contrastive, text=text)


def label_loss(logits_SK: Tensor, labels_S: Tensor, weights_K: Tensor, *, smoothing: float) -> Tensor:
    """Cross entropy times the class weight, per labelled sample."""
    rows = (labels_S != NO_LABEL).nonzero()[:, 0]
    if len(rows) == 0 or logits_SK.shape[1] == 0:
        return logits_SK.sum() * 0.0
    losses = F.cross_entropy(logits_SK[rows], labels_S[rows], reduction="none", label_smoothing=smoothing)
    return (losses * weights_K[labels_S[rows]]).mean()


def contrastive_loss(towers: dict[str, tuple[Tensor, Tensor]], logit_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE, mean over the pairs of modalities that at least two samples of the batch have.

    Source: CLIP (Radford et al. 2021, arXiv:2103.00020), figure 3.
    """
    scale = logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
    losses: list[Tensor] = []
    for first, second in combinations(towers, 2):
        rows_a, a_RD = towers[first]
        rows_b, b_RD = towers[second]
        in_a, in_b = torch.isin(rows_a, rows_b), torch.isin(rows_b, rows_a)
        if int(in_a.sum()) < 2:
            continue
        scores = scale * a_RD[in_a] @ b_RD[in_b].T
        pairs = torch.arange(len(scores))
        losses.append((F.cross_entropy(scores, pairs) + F.cross_entropy(scores.T, pairs)) / 2)
    if not losses:
        return logit_scale * 0.0 + sum(embeddings.sum() * 0.0 for _, embeddings in towers.values())
    return torch.stack(losses).mean()


def targets_of(batch: Batch) -> dict[str, Tensor]:
    """What the next-token loss predicts: the tokens of the causal modalities."""
    return {name: torch.from_numpy(batch.values[name]) for name in CAUSAL}


def text_loss(outputs: Outputs, inputs: Inputs, targets: Mapping[str, Tensor]) -> Tensor:
    """Cross entropy of each token of a causal modality given its context and earlier tokens; mean over tokens."""
    losses = [_next_loss(outputs.next_XV[name], inputs, name, targets[name]) for name in CAUSAL]
    return torch.stack(losses).mean()


def _next_loss(logits_XV: Tensor, inputs: Inputs, name: str, targets_X: Tensor) -> Tensor:
    at_X = (inputs.kinds_N == KIND_OF[name]).nonzero()[:, 0]
    is_alive_X, positions_X = inputs.is_alive_N[at_X], inputs.positions_N[at_X]
    continues = (positions_X[1:] == positions_X[:-1] + 1) & is_alive_X[:-1]
    if not bool(continues.any()):
        return logits_XV.sum() * 0.0
    return F.cross_entropy(logits_XV[:-1][continues], targets_X[1:][continues])


def class_weights(counts: list[int], balance: float) -> Tensor:
    """Weight per class: frequency to the power ``-balance``, scaled so that a mean training sample weighs 1."""
    counts_K = torch.tensor(counts, dtype=torch.float64)
    weights_K = counts_K.clamp(min=1.0) ** -balance
    return (weights_K * counts_K.sum() / (weights_K * counts_K).sum().clamp(min=1e-12)).to(torch.float32)
