"""What a trained network says about samples: class probabilities and one representation per modality."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mm_assets.batching.collate import collate, pack_samples
from mm_assets.batching.samples import Sample
from mm_assets.modalities.table import NAMES
from mm_assets.training.network import Network
from mm_assets.training.tokens import to_inputs

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """Rows in the order of the samples.

    ``probs_BK`` sums to 1 per row (K is 0 for a model without classes). ``embeddings`` per modality [B, D], unit norm;
    rows of samples without the modality are zero, and False in ``present``.
    """

    probs_BK: Floats
    embeddings: Mapping[str, Floats]
    present: Mapping[str, npt.NDArray[np.bool_]]


def predict(network: Network, samples: Sequence[Sample], *, batch_size: int) -> Predictions:
    """Predictions for ``samples``, about ``batch_size`` of them per forward pass.

    A sample's result does not depend on its neighbours beyond the rounding of float32. A sample without any modality
    is allowed: all the model knows about it are its class frequencies.
    """
    network.eval()
    dim = network.config.projection_dim
    probs_BK = np.zeros((len(samples), len(network.classes)), np.float32)
    embeddings = {name: np.zeros((len(samples), dim), np.float32) for name in NAMES}
    present = {name: np.zeros(len(samples), np.bool_) for name in NAMES}
    with torch.inference_mode():
        for first in range(0, len(samples), batch_size):
            packs = pack_samples(samples[first : first + batch_size], network.layout)
            inputs = to_inputs(collate(packs, network.layout), network.logit_scale.device)
            outputs = network(inputs)
            last = min(first + batch_size, len(samples))
            probs_BK[first:last] = outputs.logits_SK.softmax(dim=-1).cpu().numpy()
            for name, embeddings_RD in outputs.towers.items():
                rows = first + inputs.parts[name].rows_R.cpu().numpy()
                embeddings[name][rows] = embeddings_RD.cpu().numpy()
                present[name][rows] = True
    return Predictions(probs_BK=probs_BK, embeddings=embeddings, present=present)
