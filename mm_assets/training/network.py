"""One transformer over the tokens of all modalities, which their embedders make, with attention masks by modality.

Three objectives read one forward pass, so each layer decides who may see whom; samples never see one another.

1. Towers: a token sees its own modality only; of a causal modality (text) it sees what came before. Representations
   that are aligned come from here, so an alignment cannot be had by copying one modality into the other.
2. Fused layers: the other modalities see one another; causal ones see those and their own earlier tokens; CLS sees
   everything and no token sees it. So text stays causal to the end and its next token can be predicted from the
   picture, the sound and what was written so far, while the classifier, which reads CLS, uses all of the text.

Of a sample with parts a token sees its own part and earlier ones, CLS all of them; the place of a part is embedded.

Tokens of a batch are one list, pack by pack, without padding (``tokens.py``).

Legend of shapes: N tokens, X tokens of a modality, S samples, R samples that have a modality, M modalities, W width,
D projection, K classes, V vocabulary; B samples of a block and L longest of them.

Source of the split into unimodal and fused layers: CoCa (Yu et al. 2022, arXiv:2205.01917).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from mm_assets.batching.collate import CLS, KIND_OF, Layout, layout_of
from mm_assets.modalities.layer import Layer, num_kinds
from mm_assets.modalities.table import CAUSAL, aspect
from mm_assets.training.attention import block_attention
from mm_assets.training.config import ModelConfig
from mm_assets.training.tokens import Block, Inputs, Part


@dataclass(frozen=True, kw_only=True, slots=True)
class Outputs:
    """What the objectives and the evaluation read.

    ``logits_SK`` class scores. ``towers`` per modality embeddings [R, D] of unit norm, of the samples that have it.
    ``next_XV`` per causal modality next-token scores, one row per token in pack order.
    """

    logits_SK: Tensor
    towers: dict[str, Tensor]
    next_XV: dict[str, Tensor]


def in_float32(outputs: Outputs) -> Outputs:
    """The same with every tensor in float32: losses are not computed in less."""
    return Outputs(
        logits_SK=outputs.logits_SK.float(),
        towers={name: embedded_RD.float() for name, embedded_RD in outputs.towers.items()},
        next_XV={name: logits_XV.float() for name, logits_XV in outputs.next_XV.items()},
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
        x_NW = self._embed(inputs)
        attend = block_attention(inputs, [tower_mask(inputs, block) for block in inputs.blocks])
        for layer in self.towers:
            x_NW = layer(x_NW, attend)
        normed_NW = self.tower_norm(x_NW)
        pooled = {name: pool(normed_NW, inputs.parts[name]) for name in self.layout.modalities}
        x_NW = self._add_summaries(x_NW, pooled, inputs)
        attend = block_attention(inputs, [fused_mask(inputs, block) for block in inputs.blocks])
        for layer in self.fused:
            x_NW = layer(x_NW, attend)
        x_NW = self.norm(x_NW)
        return Outputs(
            logits_SK=self._classify(x_NW, inputs),
            towers={name: F.normalize(self.projections[name](pooled_RW), dim=-1) for name, pooled_RW in pooled.items()},
            next_XV={name: head(x_NW.index_select(0, inputs.parts[name].at_X)) for name, head in self.heads.items()},
        )

    def _embed(self, inputs: Inputs) -> Tensor:
        x_NW = self.kind_embedding(inputs.kinds_N)
        if self.places is not None:
            x_NW = x_NW + self.places(inputs.places_N.clamp(max=self.layout.places))
        for name, embedder in self.embedders.items():
            at_X = inputs.parts[name].at_X
            embedded_XW = embedder(inputs.values[name], inputs.positions_N.index_select(0, at_X))
            x_NW = x_NW.index_add(0, at_X, embedded_XW.to(x_NW.dtype))
        return x_NW

    def _add_summaries(self, x_NW: Tensor, pooled: dict[str, Tensor], inputs: Inputs) -> Tensor:
        """Starts CLS with what the towers found in the modalities it may see."""
        for index, (name, pooled_RW) in enumerate(pooled.items()):
            rows_R = inputs.parts[name].rows_R
            shown_R1 = inputs.visible_SM.select(1, index).index_select(0, rows_R).unsqueeze(-1)
            cls_R = inputs.cls_S.index_select(0, rows_R)
            summary_RW = (self.summaries[name](pooled_RW) * shown_R1).to(x_NW.dtype)
            x_NW = x_NW.index_add(0, cls_R, summary_RW)
        return x_NW

    def _classify(self, x_NW: Tensor, inputs: Inputs) -> Tensor:
        cls_SW = x_NW.index_select(0, inputs.cls_S)
        if self.classifier is None:
            return cls_SW.new_zeros((len(cls_SW), 0))
        return self.classifier(self.dropout(cls_SW))


def tower_mask(inputs: Inputs, block: Block) -> Tensor:
    """[B, L, L]: same modality, causal ones only backwards."""
    kinds_BL = block.take(inputs.kinds_N)
    is_same_BLL = kinds_BL.unsqueeze(2) == kinds_BL.unsqueeze(1)
    return _alive(inputs, block) & is_same_BLL & _in_order(inputs, block) & _read_before(inputs, block)


def fused_mask(inputs: Inputs, block: Block) -> Tensor:
    """[B, L, L]: the rules of point 2 above. A hidden text still sees itself: its next-token loss stays."""
    kinds_BL = block.take(inputs.kinds_N)
    kind_q, kind_k = kinds_BL.unsqueeze(2), kinds_BL.unsqueeze(1)
    is_context_k = (kind_k > CLS) & _is_causal(kind_k).logical_not()
    written = (kind_q == kind_k) & _is_causal(kind_q) & _in_order(inputs, block)
    visible_BL = block.take(_visible_tokens(inputs))
    shown = ((kind_q == CLS) | (is_context_k & _read_before(inputs, block))) & visible_BL.unsqueeze(1)
    return _alive(inputs, block) & (written | shown)


def pool(x_NW: Tensor, part: Part) -> Tensor:
    """Mean over a modality's tokens for the samples that have it, [R, W]."""
    alive_YW = x_NW.index_select(0, part.alive_Y)
    total_RW = x_NW.new_zeros((len(part.rows_R), x_NW.shape[-1])).index_add(0, part.row_Y, alive_YW)
    return total_RW / part.count_R.unsqueeze(-1)


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


def _alive(inputs: Inputs, block: Block) -> Tensor:
    """Whether a key is a token of a sample that is not dead."""
    return (block.take(inputs.is_alive_N) & block.valid_BL).unsqueeze(1)


def _in_order(inputs: Inputs, block: Block) -> Tensor:
    positions_BL = block.take(inputs.positions_N)
    is_causal_k = _is_causal(block.take(inputs.kinds_N)).unsqueeze(1)
    return (positions_BL.unsqueeze(1) <= positions_BL.unsqueeze(2)) | is_causal_k.logical_not()


def _read_before(inputs: Inputs, block: Block) -> Tensor:
    """Whether a key is of the query's part or of an earlier one; of plain samples all are."""
    places_BL = block.take(inputs.places_N)
    return places_BL.unsqueeze(1) <= places_BL.unsqueeze(2)


def _is_causal(kinds: Tensor) -> Tensor:
    """Whether a token is of a causal modality."""
    return torch.isin(kinds, torch.tensor([KIND_OF[name] for name in CAUSAL], device=kinds.device))


def _visible_tokens(inputs: Inputs) -> Tensor:
    """[N]: False for tokens of a hidden modality."""
    shown_N = torch.ones_like(inputs.kinds_N, dtype=torch.bool)
    for index, name in enumerate(inputs.values):
        visible_N = inputs.visible_SM.select(1, index).index_select(0, inputs.slots_N)
        shown_N &= (inputs.kinds_N != KIND_OF[name]) | visible_N
    return shown_N


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=min(0.06, module.weight[0].numel() ** -0.5))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=0.02)
