"""One transformer over text tokens, image patches and log-mel audio frames, with attention masks by modality.

Three objectives read one forward pass, so each layer decides who may see whom; samples never see one another.

1. Towers: a token sees its own modality only, text causally. Representations that are aligned come from here, so an
   alignment cannot be had by copying one modality into the other.
2. Fused layers: image and audio see image and audio; text sees those and earlier text; CLS sees everything and is seen
   by nobody. So text stays causal to the end and its next token can be predicted from the picture, the sound and
   what was written so far, while the classifier, which reads CLS, uses all of the text.

Legend of shapes: P packs, T tokens per pack, N images, A audio tokens, X text tokens, S samples, M modalities, W width,
D projection, K classes, V vocabulary.

Source of the split into unimodal and fused layers: CoCa (Yu et al. 2022, arXiv:2205.01917). Of the hashed byte n-grams:
Byte Latent Transformer (Pagnoni et al. 2024, arXiv:2412.09871), section 3.2.1.
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

from mm_assets.batching.collate import AUDIO, CLS, IMAGE, MODALITIES, TEXT, Batch, Layout
from mm_assets.features.text import VOCAB_SIZE
from mm_assets.training.config import ModelConfig

KIND_OF = {"text": TEXT, "image": IMAGE, "audio": AUDIO}
NUM_KINDS = 5
HASH_PRIME = 1_000_003


@dataclass(frozen=True, kw_only=True, slots=True)
class Outputs:
    """What the objectives and the evaluation read.

    ``logits_SK`` class scores. ``towers`` per modality a pair (rows_R: sample numbers that have it, embeddings_RD:
    unit norm). ``text_logits_XV`` next-token scores, one row per text token in pack order.
    """

    logits_SK: Tensor
    towers: dict[str, tuple[Tensor, Tensor]]
    text_logits_XV: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """A ``Batch`` as tensors. ``visible_SM`` hides a sample's modality from the fused layers where it is False."""

    segments_PT: Tensor
    kinds_PT: Tensor
    positions_PT: Tensor
    tokens_PT: Tensor
    images_NHWC: Tensor
    audio_AF: Tensor
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
        tokens_PT=torch.from_numpy(batch.tokens_PT),
        images_NHWC=torch.from_numpy(batch.images_NHWC.copy()),
        audio_AF=torch.from_numpy(batch.audio_AF),
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
        self.kind_embedding = nn.Embedding(NUM_KINDS, width)
        self.text = TextEmbedding(config)
        self.image = ImageEmbedding(config, layout)
        self.audio = nn.Linear(layout.audio_stack * layout.num_mels, width)
        self.audio_positions = nn.Embedding(config.max_positions, width)
        self.towers = nn.ModuleList(Layer(config) for _ in range(config.tower_layers))
        self.fused = nn.ModuleList(Layer(config) for _ in range(config.fused_layers))
        self.tower_norm = nn.LayerNorm(width)
        self.projections = nn.ModuleDict({name: nn.Linear(width, config.projection_dim) for name in MODALITIES})
        self.summaries = nn.ModuleDict({name: nn.Linear(width, width) for name in MODALITIES})
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.norm = nn.LayerNorm(width)
        self.text_head = nn.Linear(width, VOCAB_SIZE)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(width, len(self.classes)) if self.classes else None
        self.apply(_initialise)

    def forward(self, inputs: Inputs) -> Outputs:
        """Runs the batch once; see ``Outputs``."""
        x_PTW = self._embed(inputs)
        mask_PTT = tower_mask(inputs)
        for layer in self.towers:
            x_PTW = layer(x_PTW, mask_PTT)
        pooled = {name: pool(self.tower_norm(x_PTW), inputs, name) for name in MODALITIES}
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
            text_logits_XV=self.text_head(x_PTW[inputs.kinds_PT == TEXT]),
        )

    def _embed(self, inputs: Inputs) -> Tensor:
        x_PTW = self.kind_embedding(inputs.kinds_PT)
        flat_W = x_PTW.reshape(-1, x_PTW.shape[-1])
        kinds = inputs.kinds_PT.reshape(-1)
        positions = inputs.positions_PT.reshape(-1).clamp(max=self.audio_positions.num_embeddings - 1)
        audio_at, image_at = (kinds == AUDIO).nonzero()[:, 0], (kinds == IMAGE).nonzero()[:, 0]
        text_at = (kinds == TEXT).nonzero()[:, 0]
        audio = self.audio(inputs.audio_AF) + self.audio_positions(positions[audio_at])
        flat_W = flat_W.index_add(0, audio_at, audio)
        flat_W = flat_W.index_add(0, image_at, self.image(inputs.images_NHWC))
        flat_W = flat_W.index_add(0, text_at, self.text(inputs, text_at))
        return flat_W.view_as(x_PTW)

    def _add_summaries(self, x_PTW: Tensor, pooled: dict[str, tuple[Tensor, Tensor]], inputs: Inputs) -> Tensor:
        """Starts CLS with what the towers found in the modalities it may see."""
        flat = x_PTW.reshape(-1, x_PTW.shape[-1])
        cls_S = cls_places(inputs)
        for index, name in enumerate(MODALITIES):
            rows_R, pooled_RW = pooled[name]
            shown_R1 = inputs.visible_SM[rows_R, index].unsqueeze(-1)
            flat = flat.index_add(0, cls_S[rows_R], self.summaries[name](pooled_RW) * shown_R1)
        return flat.view_as(x_PTW)

    def _classify(self, x_PTW: Tensor, inputs: Inputs) -> Tensor:
        cls_SW = x_PTW.reshape(-1, x_PTW.shape[-1])[cls_places(inputs)]
        if self.classifier is None:
            return cls_SW.new_zeros((len(cls_SW), 0))
        return self.classifier(self.dropout(cls_SW))


class Layer(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, config.mlp_ratio * width)
        self.down = nn.Linear(config.mlp_ratio * width, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_PTW: Tensor, mask_PTT: Tensor) -> Tensor:
        """``mask_PTT`` is True where a query (second axis) may see a key (third)."""
        num_packs, length, width = x_PTW.shape
        qkv = self.qkv(self.attention_norm(x_PTW)).view(num_packs, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_PTT.unsqueeze(1))
        x_PTW = x_PTW + self.dropout(self.out(seen.transpose(1, 2).reshape(num_packs, length, width)))
        return x_PTW + self.dropout(self.down(F.gelu(self.up(self.mlp_norm(x_PTW)))))


class TextEmbedding(nn.Module):
    """A byte, its position, and the hashed n-grams that end at it; an n-gram never looks ahead."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ngrams = config.ngrams
        self.buckets = config.ngram_buckets
        self.bytes = nn.Embedding(VOCAB_SIZE, config.width)
        self.positions = nn.Embedding(config.max_positions, config.width)
        self.tables = nn.ModuleList(nn.Embedding(config.ngram_buckets, config.width) for _ in config.ngrams)

    def forward(self, inputs: Inputs, at_X: Tensor) -> Tensor:
        """[X, W] for the text tokens at the flat places ``at_X``.

        Packs are flattened, but an n-gram stops at its text's first token, so it never reaches another sample.
        """
        tokens, positions = inputs.tokens_PT.reshape(-1), inputs.positions_PT.reshape(-1)
        x_XW = self.bytes(tokens[at_X]) + self.positions(positions[at_X].clamp(max=self.positions.num_embeddings - 1))
        for size, table in zip(self.ngrams, self.tables, strict=True):
            x_XW = x_XW + table(self._hash(tokens, positions, size)[at_X])
        return x_XW

    def _hash(self, tokens: Tensor, positions: Tensor, size: int) -> Tensor:
        value = tokens + 1
        for back in range(1, size):
            earlier = torch.where(positions >= back, tokens.roll(back) + 1, 0)
            value = (value * HASH_PRIME + earlier) % (1 << 31)
        return (value ^ (value >> 13)) % self.buckets


class ImageEmbedding(nn.Module):
    """Two strided convolutions, then one token per patch."""

    def __init__(self, config: ModelConfig, layout: Layout) -> None:
        super().__init__()
        first, second = config.stem_channels
        self.first = nn.Conv2d(3, first, 3, stride=2, padding=1)
        self.second = nn.Conv2d(first, second, 3, stride=2, padding=1)
        side = max(1, layout.image_patch // 4)
        self.patches = nn.Conv2d(second, config.width, side, stride=side)
        self.positions = nn.Parameter(torch.zeros(layout.image_tokens, config.width))

    def forward(self, images_NHWC: Tensor) -> Tensor:
        """Tokens of all images, one after the other: [N * patches, W]."""
        if len(images_NHWC) == 0:
            return self.positions.new_zeros((0, self.positions.shape[-1]))
        x = images_NHWC.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0
        x = self.patches(F.gelu(self.second(F.gelu(self.first(x)))))
        return (x.flatten(2).transpose(1, 2) + self.positions).reshape(-1, self.positions.shape[-1])


def tower_mask(inputs: Inputs) -> Tensor:
    """[P, T, T]: same sample and modality, text only backwards; every token sees itself."""
    kind_q, kind_k = inputs.kinds_PT.unsqueeze(2), inputs.kinds_PT.unsqueeze(1)
    return (_same_sample(inputs) & (kind_q == kind_k) & _in_order(inputs)) | _itself(inputs)


def fused_mask(inputs: Inputs) -> Tensor:
    """[P, T, T]: the rules of point 2 above. A hidden text still sees itself: its next-token loss stays."""
    kind_q, kind_k = inputs.kinds_PT.unsqueeze(2), inputs.kinds_PT.unsqueeze(1)
    is_context_k = (kind_k == IMAGE) | (kind_k == AUDIO)
    written = (kind_q == TEXT) & (kind_k == TEXT) & _in_order(inputs)
    shown = ((kind_q == CLS) | is_context_k) & _visible_tokens(inputs).unsqueeze(1)
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
    return Network(ModelConfig(**model), Layout(**config["layout"]), config["classes"])


def _same_sample(inputs: Inputs) -> Tensor:
    segments = inputs.segments_PT
    return (segments.unsqueeze(2) == segments.unsqueeze(1)) & (segments > 0).unsqueeze(1)


def _in_order(inputs: Inputs) -> Tensor:
    positions = inputs.positions_PT
    return (positions.unsqueeze(1) <= positions.unsqueeze(2)) | (inputs.kinds_PT != TEXT).unsqueeze(1)


def _itself(inputs: Inputs) -> Tensor:
    return torch.eye(inputs.kinds_PT.shape[1], dtype=torch.bool)


def _visible_tokens(inputs: Inputs) -> Tensor:
    """[P, T]: False for tokens of a hidden modality."""
    visible = torch.cat([inputs.visible_SM.new_ones((1, len(MODALITIES))), inputs.visible_SM])
    shown = torch.ones_like(inputs.kinds_PT, dtype=torch.bool)
    for index, name in enumerate(MODALITIES):
        shown &= (inputs.kinds_PT != KIND_OF[name]) | visible[inputs.segments_PT][..., index]
    return shown


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=min(0.06, module.weight[0].numel() ** -0.5))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=0.02)
