"""Attention within samples: no mask is wider than a sample, and no product is made for padding of packs.

Samples of about one length are attended together as rows of a block. A row is at most twice as long as what it holds,
so the cost grows with the sum of squared lengths of samples, whatever the length of a pack.

Legend of shapes: N tokens of a batch, B samples of a block, L longest of them, H heads, D channels of a head.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mm_assets.training.tokens import Inputs


def block_attention(inputs: Inputs, masks_BLL: Sequence[Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Attention of [N, H, D] queries, keys and values, where each block's mask is True: rows see columns.

    Every token sees itself; what stands behind a sample's end is seen by nothing else and dropped.
    """
    seen_BLL = [mask | torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device) for mask in masks_BLL]

    def attend(q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor) -> Tensor:
        rows: list[Tensor] = []
        for block, mask in zip(inputs.blocks, seen_BLL, strict=True):
            q, k, v = (block.take(values).transpose(1, 2) for values in (q_NHD, k_NHD, v_NHD))
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.unsqueeze(1))
            rows.append(attended.transpose(1, 2).flatten(0, 1))
        return torch.cat(rows).index_select(0, inputs.order_N)

    return attend
