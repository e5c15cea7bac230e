"""The three objectives. Each is zero, with a gradient of zero, where a batch has nothing for it.

Legend of shapes: S samples, T samples of a step, M modalities, K classes, D projection, X tokens of a causal modality.
"""

import math
from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from mm_assets.batching.collate import KIND_OF, NO_LABEL, Batch
from mm_assets.modalities.table import CAUSAL
from mm_assets.training.network import Inputs, Outputs, to_device

MAX_LOGIT_SCALE = 4.6  # exp: 100, the ceiling of CLIP (Radford et al. 2021, arXiv:2103.00020)


def label_loss(logits_SK: Tensor, labels_S: Tensor, weights_K: Tensor, *, smoothing: float) -> Tensor:
    """Cross entropy times the class weight, per labelled sample."""
    rows = (labels_S != NO_LABEL).nonzero()[:, 0]
    if len(rows) == 0 or logits_SK.shape[1] == 0:
        return logits_SK.sum() * 0.0
    losses = F.cross_entropy(logits_SK[rows], labels_S[rows], reduction="none", label_smoothing=smoothing)
    return (losses * weights_K[labels_S[rows]]).mean()


def contrastive_loss(embedded_TMD: Tensor, is_there_TM: Tensor, groups_T: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE, mean over the pairs of modalities that at least two samples have.

    Samples of the same group are not each other's negatives.

    Args:
        embedded_TMD: Unit vectors by sample and modality; what is not there is not read.
        is_there_TM: Which of them are there.
        groups_T: What each sample belongs to; one of its own where it belongs to nothing.
        logit_scale: Logarithm of the inverse temperature.

    Source: CLIP (Radford et al. 2021, arXiv:2103.00020), figure 3.
    """
    scale = logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
    losses: list[Tensor] = []
    for first, second in combinations(range(embedded_TMD.shape[1]), 2):
        rows = (is_there_TM[:, first] & is_there_TM[:, second]).nonzero()[:, 0]
        if len(rows) < 2:
            continue
        scores = scale * embedded_TMD[rows, first] @ embedded_TMD[rows, second].T
        groups = groups_T[rows]
        pairs = torch.arange(len(rows), device=rows.device)
        is_same = (groups.unsqueeze(0) == groups.unsqueeze(1)) & (pairs.unsqueeze(0) != pairs.unsqueeze(1))
        scores = scores.masked_fill(is_same, -math.inf)
        losses.append((F.cross_entropy(scores, pairs) + F.cross_entropy(scores.T, pairs)) / 2)
    return torch.stack(losses).mean() if losses else logit_scale * 0.0 + embedded_TMD.sum() * 0.0


def targets_of(batch: Batch, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """What the next-token loss predicts: the tokens of the causal modalities as they are, masked or not."""
    return {name: to_device(batch.values[name], device) for name in CAUSAL}


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
