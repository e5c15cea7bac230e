"""The layer that the training network is made of, and what numbers its tokens: shared with encoders made of its towers.

Legend of shapes: B rows, T tokens of a row, H heads, D channels of a head, W width; a dot stands for any leading axes.
"""

from collections.abc import Callable, Iterable
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

    def forward(self, x_W: Tensor, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """``attend`` makes [..., H, D] of queries, keys and values of that shape, for [..., W] here."""
        q, k, v = self.qkv(self.attention_norm(x_W)).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        x_W = x_W + self.dropout(self.out(attend(q, k, v).flatten(-2)))
        return x_W + self.dropout(self.down(F.gelu(self.up(self.mlp_norm(x_W)))))


def masked_attention(mask_BTT: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Attention of [B, T, H, D], True where a query (second axis) may see a key (third)."""

    def attend(q_BTHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor) -> Tensor:
        q, k, v = (values.transpose(1, 2) for values in (q_BTHD, k_BTHD, v_BTHD))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask_BTT.unsqueeze(1)).transpose(1, 2)

    return attend
