"""An encoder that is made of a trained model's towers: each modality embedded by itself, as the model does it.

Rows are embedded ``BATCH_ROWS`` at a time in the order of the shard, whatever the placement says: the last bits of a
product of matrices depend on their shapes.

Legend of shapes: B samples, T tokens, X tokens of all samples one after the other, W width, D embedding.
"""

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from mm_assets.errors import StageError
from mm_assets.features.production import CONFIG
from mm_assets.modalities.kinds import KIND_OF
from mm_assets.modalities.layer import Layer, masked_attention, num_kinds
from mm_assets.modalities.shapes import modalities_of
from mm_assets.modalities.table import CAUSAL, MODALITIES, NAMES, aspect

BATCH_ROWS = 64


class TowerEncoder(nn.Module):
    """The towers of a model, as unit vectors of one length."""

    batch_rows = BATCH_ROWS
    modalities = NAMES

    def __init__(self, model: Any, shape: Mapping[str, int]) -> None:
        super().__init__()
        self.shape = dict(shape)
        self.dim = int(model.projection_dim)
        self.modalities = modalities_of(shape)
        self.kind_embedding = nn.Embedding(num_kinds(self.modalities), model.width)
        self.embedders = nn.ModuleDict(
            {name: aspect(name, "embedder").Embedder(model, shape) for name in self.modalities}
        )
        self.towers = nn.ModuleList(Layer(model) for _ in range(model.tower_layers))
        self.tower_norm = nn.LayerNorm(model.width)
        self.projections = nn.ModuleDict({name: nn.Linear(model.width, self.dim) for name in self.modalities})

    def misfit(self, shape: Mapping[str, int]) -> str | None:
        """What is expected of the tensors and not so."""
        wrong = [name for name, value in shape.items() if self.shape.get(name, value) != value]
        return ", ".join(f"{name} {self.shape[name]}, got {shape[name]}" for name in wrong) or None

    def encode_column(self, modality: str, column: pa.Array, shape: Mapping[str, int]) -> Tensor:
        """The values of a column without nulls as float32 unit vectors [B, D].

        Raises:
            StageError: the model has no tower for the modality.
        """
        if modality not in self.modalities:
            raise StageError(
                f"encoder: has no tower for {modality}: expected one of {', '.join(self.modalities)}. Open a release "
                f"with the bootstrap encoder, or with towers of a model that was trained on {modality}."
            )
        tensors = [aspect(modality, "column").read(value, shape) for value in column]
        tokens = aspect(modality, "tokens")
        length = MODALITIES[modality].length_column
        counts = [tokens.count(1 if length is None else len(tensor), self.shape) for tensor in tensors]
        parts = [tokens.values(tensor, count, self.shape) for tensor, count in zip(tensors, counts, strict=True)]
        device = self.kind_embedding.weight.device
        values = torch.from_numpy(np.ascontiguousarray(np.concatenate(parts))).to(device)
        return self._embed(modality, values, torch.tensor(counts, device=device))

    def _embed(self, modality: str, values: Tensor, count_B: Tensor) -> Tensor:
        place_T = torch.arange(int(count_B.max()), device=count_B.device)
        valid_BT = place_T < count_B[:, None]
        position_X = place_T.expand(valid_BT.shape)[valid_BT]
        kind_W = self.kind_embedding.weight[KIND_OF[modality]]
        x_BTW = kind_W.new_zeros((*valid_BT.shape, len(kind_W)))
        x_BTW[valid_BT] = self.embedders[modality](values, position_X) + kind_W
        # Padding is seen by nothing and sees itself alone.
        mask_BTT = valid_BT[:, None, :] & valid_BT[:, :, None]
        if modality in CAUSAL:
            mask_BTT = mask_BTT & (place_T[None, :] <= place_T[:, None])
        mask_BTT = mask_BTT | torch.eye(len(place_T), dtype=torch.bool, device=count_B.device)
        attend = masked_attention(mask_BTT)
        for layer in self.towers:
            x_BTW = layer(x_BTW, attend)
        total_BW = (self.tower_norm(x_BTW) * valid_BT[:, :, None]).sum(1)
        return F.normalize(self.projections[modality](total_BW / count_B[:, None]), dim=-1)


def load_towers(path: str, *, dim: int, digest: str) -> TowerEncoder:
    """The encoder in a safetensors file whose digest was verified.

    Raises:
        StageError: the file holds other tensors than ``production`` writes for ``dim`` and the modalities of now.
    """
    with safe_open(path, framework="pt") as file:
        described: dict[str, Any] = json.loads((file.metadata() or {}).get(CONFIG, "{}"))
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    try:
        model = {name: tuple(value) if isinstance(value, list) else value for name, value in described["model"].items()}
        shape = {name: value for name, value in described["layout"].items() if name != "pack_tokens"}
        encoder = TowerEncoder(SimpleNamespace(**model), shape)
        encoder.load_state_dict(tensors)
    except (KeyError, AttributeError, RuntimeError) as error:
        raise StageError(
            f"encoder {digest}: holds no towers that this version can run: expected those of {', '.join(NAMES)}. Open "
            "a release with the bootstrap encoder, or with towers of a model of this version."
        ) from error
    if encoder.dim != dim:
        raise StageError(f"encoder {digest}: gives other embeddings: expected {dim} numbers, got {encoder.dim}.")
    return encoder.eval()
