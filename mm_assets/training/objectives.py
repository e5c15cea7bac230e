"""The three objectives. Each is zero, with a gradient of zero, where a batch has nothing for it.

Legend of shapes: S samples, T samples of a step, M modalities, K classes, D projection,
X tokens of a causal modality, Z of them with another behind; R some of S or T.
"""

import math
from collections.abc import Mapping
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from mm_assets.batching.collate import Batch
from mm_assets.modalities.table import CAUSAL
from mm_assets.training.network import Outputs
from mm_assets.training.tokens import Device, Inputs, to_device

MAX_LOGIT_SCALE = 4.6  # exp: 100, the ceiling of CLIP (Radford et al. 2021, arXiv:2103.00020)


def label_loss(logits_SK: Tensor, inputs: Inputs, weights_K: Tensor, *, smoothing: float) -> Tensor:
    """Cross entropy times the class weight, per labelled sample."""
    rows_R = inputs.labelled_R
    if len(rows_R) == 0 or logits_SK.shape[1] == 0:
        return logits_SK.sum() * 0.0
    labels_R = inputs.labels_S.index_select(0, rows_R)
    logits_RK = logits_SK.index_select(0, rows_R)
    losses = F.cross_entropy(logits_RK, labels_R, reduction="none", label_smoothing=smoothing)
    return (losses * weights_K.index_select(0, labels_R)).mean()


def contrastive_loss(
    embedded_TMD: Tensor, is_there_TM: npt.NDArray[np.bool_], groups_T: npt.NDArray[np.int64], logit_scale: Tensor
) -> Tensor:
    """Symmetric InfoNCE, mean over the pairs of modalities that at least two samples have.

    Samples of the same group are not each other's negatives.

    Args:
        embedded_TMD: Unit vectors by sample and modality; what is not there is not read.
        is_there_TM: Which of them are there.
        groups_T: What each sample belongs to; a number of its own where it belongs to nothing.
        logit_scale: Logarithm of the inverse temperature.

    Source: CLIP (Radford et al. 2021, arXiv:2103.00020), figure 3.
    """
    device = embedded_TMD.device
    scale = logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
    losses: list[Tensor] = []
    for first, second in combinations(range(embedded_TMD.shape[1]), 2):
        rows = np.flatnonzero(is_there_TM[:, first] & is_there_TM[:, second])
        if len(rows) < 2:
            continue
        is_same = groups_T[rows, None] == groups_T[None, rows]
        np.fill_diagonal(is_same, val=False)
        at_R, pairs_R = to_device(rows, device), torch.arange(len(rows), device=device)
        first_RD, second_RD = (embedded_TMD.select(1, number).index_select(0, at_R) for number in (first, second))
        scores_RR = scale * first_RD @ second_RD.T
        scores_RR = scores_RR.masked_fill(to_device(is_same, device), -math.inf)
        losses.append((F.cross_entropy(scores_RR, pairs_R) + F.cross_entropy(scores_RR.T, pairs_R)) / 2)
    return torch.stack(losses).mean() if losses else logit_scale * 0.0 + embedded_TMD.sum() * 0.0


def targets_of(batch: Batch, device: Device = "cpu") -> dict[str, Tensor]:
    """What the next-token loss predicts: the tokens of the causal modalities as they are, masked or not."""
    return {name: to_device(batch.values[name], device) for name in CAUSAL}


def text_loss(outputs: Outputs, inputs: Inputs, targets: Mapping[str, Tensor]) -> Tensor:
    """Cross entropy of each token of a causal modality given its context and earlier tokens; mean over tokens."""
    losses: list[Tensor] = []
    for name in CAUSAL:
        logits_XV, follows_Z = outputs.next_XV[name], inputs.parts[name].follows_Z
        if len(follows_Z):
            losses.append(
                F.cross_entropy(logits_XV.index_select(0, follows_Z), targets[name].index_select(0, follows_Z + 1))
            )
        else:
            losses.append(logits_XV.sum() * 0.0)
    return torch.stack(losses).mean()


def class_weights(counts: list[int], balance: float) -> Tensor:
    """Weight per class: frequency to the power ``-balance``, scaled so that a mean training sample weighs 1."""
    counts_K = torch.tensor(counts, dtype=torch.float64)
    weights_K = counts_K.clamp(min=1.0) ** -balance
    return (weights_K * counts_K.sum() / (weights_K * counts_K).sum().clamp(min=1e-12)).to(torch.float32)
