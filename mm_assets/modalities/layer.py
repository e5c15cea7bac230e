"""The layer that the training network is made of, and what numbers its tokens: shared with encoders made of its towers.

Legend of shapes: P packs, T tokens per pack, W width.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mm_assets.modalities.kinds import CLS, KIND_OF


def num_kinds(modalities: Iterable[str]) -> int:
    """Kinds of tokens that a network of these modalities tells apart."""
    return 1 + max(CLS, *(KIND_OF[name] for name in modalities))


class Layer(nn.Module):
    """Pre-norm attention and feed-forward. ``config`` is a ``ModelConfig``."""

    def __init__(self, config: Any) -> None:
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
