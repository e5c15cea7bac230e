"""One transformer over the tokens of all modalities, which their embedders make, with attention masks by modality.

Three objectives read one forward pass, so each layer decides who may see whom; samples never see one another.

1. Towers: a token sees its own modality only; of a causal modality (text) it sees what came before. Representations
   that are aligned come from here, so an alignment cannot be had by copying one modality into the other.
2. Fused layers: the other modalities see one another; causal ones see those and their own earlier tokens; CLS sees
   everything and no token sees it. So text stays causal to the end and its next token can be predicted from the
   picture, the sound and what was written so far, while the classifier, which reads CLS, uses all of the text.

Of a sample with parts a token sees its own part and earlier ones, CLS all of them; the place of a part is embedded.

Legend of shapes: P packs, T tokens per pack, X tokens of a modality, S samples, M modalities, W width, D projection,
K classes, V vocabulary.

Source of the split into unimodal and fused layers: CoCa (Yu et al. 2022, arXiv:2205.01917).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from mm_assets.batching.collate import CLS, KIND_OF, Batch, Layout, layout_of
from mm_assets.modalities.layer import Layer, num_kinds
from mm_assets.modalities.table import CAUSAL, aspect
from mm_assets.training.config import ModelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Outputs:
    """What the objectives and the evaluation read.

    ``logits_SK`` class scores. ``towers`` per modality a pair (rows_R: sample numbers that have it, embeddings_RD:
    unit norm). ``next_XV`` per causal modality next-token scores, one row per token in pack order.
    """

    logits_SK: Tensor
    towers: dict[str, tuple[Tensor, Tensor]]
    next_XV: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """A ``Batch`` as tensors; ``values`` and the columns of ``presence_SM`` are in the order of the table.

    ``visible_SM`` hides a sample's modality from the fused layers where it is False.
    """

    segments_PT: Tensor
    kinds_PT: Tensor
    positions_PT: Tensor
    places_PT: Tensor
    values: dict[str, Tensor]
    labels_S: Tensor
    presence_SM: Tensor
    visible_SM: Tensor


def to_inputs(batch: Batch) -> Inputs:
    """The tensors of a collated batch, nothing hidden."""
    presence = torch.from_numpy(batch.presence_SM)
    return Inputs(
        segments_PT=torch.from_numpy(batch.segments_PT),
        kinds_PT=torch.from_numpy(batch.kinds_PT),
        positions_PT=torch.from_numpy(batch.positions_PT),
        places_PT=torch.from_numpy(batch.places_PT),
        values={name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in batch.values.items()},
        labels_S=torch.from_numpy(batch.labels_S),
        presence_SM=presence,
        visible_SM=presence,
    )


class Network(nn.Module):
    """The model of this pipeline. ``classes`` may be empty: then it has no classifier."""

    def __init__(self, config: ModelConfig, layout: Layout, classes: Sequence[str]) -> None:
        super().__init__()
        self.config = config
        self.layout = layout
        self.classes = tuple(classes)
        width = config.width
        self.kind_embedding = nn.Embedding(num_kinds(layout.modalities), width)
        self.embedders = nn.ModuleDict(
            {name: aspect(name, "embedder").Embedder(config, layout.shape) for name in layout.modalities}
        )
        self.towers = nn.ModuleList(Layer(config) for _ in range(config.tower_layers))
        self.fused = nn.ModuleList(Layer(config) for _ in range(config.fused_layers))
        self.tower_norm = nn.LayerNorm(width)
        self.projections = nn.ModuleDict({name: nn.Linear(width, config.projection_dim) for name in layout.modalities})
        self.summaries = nn.ModuleDict({name: nn.Linear(width, width) for name in layout.modalities})
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(width, aspect(name, "embedder").Embedder.vocab_size) for name in CAUSAL}
        )
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(width, len(self.classes)) if self.classes else None
        # Place 0 is that of tokens of no part.
        self.places = nn.Embedding(layout.places + 1, width) if layout.places else None
        self.apply(_initialise)

    def forward(self, inputs: Inputs) -> Outputs:
        """Runs the batch once; see ``Outputs``."""
        x_PTW = self._embed(inputs)
        mask_PTT = tower_mask(inputs)
        for layer in self.towers:
            x_PTW = layer(x_PTW, mask_PTT)
        pooled = {name: pool(self.tower_norm(x_PTW), inputs, name) for name in self.layout.modalities}
        x_PTW = self._add_summaries(x_PTW, pooled, inputs)
        mask_PTT = fused_mask(inputs)
        for layer in self.fused:
            x_PTW = layer(x_PTW, mask_PTT)
        x_PTW = self.norm(x_PTW)
        return Outputs(
            logits_SK=self._classify(x_PTW, inputs),
            towers={
                name: (rows_R, F.normalize(self.projections[name](pooled_RW), dim=-1))
                for name, (rows_R, pooled_RW) in pooled.items()
            },
            next_XV={name: head(x_PTW[inputs.kinds_PT == KIND_OF[name]]) for name, head in self.heads.items()},
        )

    def _embed(self, inputs: Inputs) -> Tensor:
        x_PTW = self.kind_embedding(inputs.kinds_PT)
        if self.places is not None:
            x_PTW = x_PTW + self.places(inputs.places_PT.clamp(max=self.layout.places))
        flat_W = x_PTW.reshape(-1, x_PTW.shape[-1])
        kinds = inputs.kinds_PT.reshape(-1)
        positions = inputs.positions_PT.reshape(-1)
        for name, embedder in self.embedders.items():
            at_X = (kinds == KIND_OF[name]).nonzero()[:, 0]
            flat_W = flat_W.index_add(0, at_X, embedder(inputs.values[name], positions[at_X]))
        return flat_W.view_as(x_PTW)

    def _add_summaries(self, x_PTW: Tensor, pooled: dict[str, tuple[Tensor, Tensor]], inputs: Inputs) -> Tensor:
        """Starts CLS with what the towers found in the modalities it may see."""
        flat = x_PTW.reshape(-1, x_PTW.shape[-1])
        cls_S = cls_places(inputs)
        for index, name in enumerate(pooled):
            rows_R, pooled_RW = pooled[name]
            shown_R1 = inputs.visible_SM[rows_R, index].unsqueeze(-1)
            flat = flat.index_add(0, cls_S[rows_R], self.summaries[name](pooled_RW) * shown_R1)
        return flat.view_as(x_PTW)

    def _classify(self, x_PTW: Tensor, inputs: Inputs) -> Tensor:
        cls_SW = x_PTW.reshape(-1, x_PTW.shape[-1])[cls_places(inputs)]
        if self.classifier is None:
            return cls_SW.new_zeros((len(cls_SW), 0))
        return self.classifier(self.dropout(cls_SW))


def tower_mask(inputs: Inputs) -> Tensor:
    """[P, T, T]: same sample and modality, causal ones only backwards; every token sees itself."""
    kind_q, kind_k = inputs.kinds_PT.unsqueeze(2), inputs.kinds_PT.unsqueeze(1)
    seen = (kind_q == kind_k) & _in_order(inputs) & _read_before(inputs)
    return (_same_sample(inputs) & seen) | _itself(inputs)


def fused_mask(inputs: Inputs) -> Tensor:
    """[P, T, T]: the rules of point 2 above. A hidden text still sees itself: its next-token loss stays."""
    kind_q, kind_k = inputs.kinds_PT.unsqueeze(2), inputs.kinds_PT.unsqueeze(1)
    is_context_k = (kind_k > CLS) & ~_is_causal(kind_k)
    written = (kind_q == kind_k) & _is_causal(kind_q) & _in_order(inputs)
    shown = ((kind_q == CLS) | (is_context_k & _read_before(inputs))) & _visible_tokens(inputs).unsqueeze(1)
    return (_same_sample(inputs) & (written | shown)) | _itself(inputs)


def pool(x_PTW: Tensor, inputs: Inputs, modality: str) -> tuple[Tensor, Tensor]:
    """Mean over a modality's tokens for the samples that have it: (their numbers R, [R, W])."""
    num_samples = len(inputs.labels_S)
    at = ((inputs.kinds_PT == KIND_OF[modality]) & (inputs.segments_PT > 0)).reshape(-1).nonzero()[:, 0]
    sample = inputs.segments_PT.reshape(-1)[at] - 1
    total_SW = x_PTW.new_zeros((num_samples, x_PTW.shape[-1]))
    total_SW = total_SW.index_add(0, sample, x_PTW.reshape(-1, x_PTW.shape[-1])[at])
    count_S = torch.bincount(sample, minlength=num_samples)
    rows_R = count_S.nonzero()[:, 0]
    return rows_R, total_SW[rows_R] / count_S[rows_R].unsqueeze(-1)


def cls_places(inputs: Inputs) -> Tensor:
    """Flat place of each sample's CLS token, dead samples included: slots are collated in order."""
    return (inputs.kinds_PT.reshape(-1) == CLS).nonzero()[:, 0]


def load_network(config_path: Path, weights_path: Path) -> Network:
    """The network that ``config.json`` and ``weights.safetensors`` of a model describe, ready for evaluation."""
    network = build_network(json.loads(config_path.read_text(encoding="utf-8")))
    network.load_state_dict(load_file(weights_path))
    return network.eval()


def build_network(config: dict[str, Any]) -> Network:
    """An initialised network for the content of ``config.json``."""
    model = dict(config["model"])
    for name in ("ngrams", "stem_channels"):
        model[name] = tuple(model[name])
    return Network(ModelConfig(**model), layout_of(config["layout"]), config["classes"])


def _same_sample(inputs: Inputs) -> Tensor:
    segments = inputs.segments_PT
    return (segments.unsqueeze(2) == segments.unsqueeze(1)) & (segments > 0).unsqueeze(1)


def _in_order(inputs: Inputs) -> Tensor:
    positions = inputs.positions_PT
    return (positions.unsqueeze(1) <= positions.unsqueeze(2)) | ~_is_causal(inputs.kinds_PT).unsqueeze(1)


def _read_before(inputs: Inputs) -> Tensor:
    """Whether a key is of the query's part or of an earlier one; of plain samples all are."""
    places = inputs.places_PT
    return places.unsqueeze(1) <= places.unsqueeze(2)


def _is_causal(kinds: Tensor) -> Tensor:
    """Whether a token is of a causal modality."""
    return torch.isin(kinds, torch.tensor([KIND_OF[name] for name in CAUSAL], device=kinds.device))


def _itself(inputs: Inputs) -> Tensor:
    return torch.eye(inputs.kinds_PT.shape[1], dtype=torch.bool)


def _visible_tokens(inputs: Inputs) -> Tensor:
    """[P, T]: False for tokens of a hidden modality."""
    visible = torch.cat([inputs.visible_SM.new_ones((1, inputs.visible_SM.shape[1])), inputs.visible_SM])
    shown = torch.ones_like(inputs.kinds_PT, dtype=torch.bool)
    for index, name in enumerate(inputs.values):
        shown &= (inputs.kinds_PT != KIND_OF[name]) | visible[inputs.segments_PT][..., index]
    return shown


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=min(0.06, module.weight[0].numel() ** -0.5))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=0.02)
