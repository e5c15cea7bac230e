"""Attention within samples: tokens of a batch are one list without padding, and no mask is wider than a sample.

Samples of about one length are attended together, as a block of rows. A block's rows are at most twice as long as what
they hold, so the cost grows with the sum of squared lengths of samples, whatever the length of a pack.

Legend of shapes: N tokens of a batch, B samples of a block, L longest of them, H heads, D channels of a head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Samples of about one length.

    Attributes:
        tokens_BL: Number of each sample's tokens in the list; 0 behind its end.
        valid_BL: Which of these are tokens.
    """

    tokens_BL: Tensor
    valid_BL: Tensor

    def take(self, values_N: Tensor) -> Tensor:
        """The values of the block's tokens, [B, L, ...]."""
        return values_N[self.tokens_BL]


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocks:
    """All samples of a batch; ``order_N`` leads from the blocks' tokens, one after the other, back to the list."""

    blocks: tuple[Block, ...]
    order_N: Tensor


def make_blocks(slots_N: Tensor) -> Blocks:
    """Blocks of samples whose lengths have the same number of binary digits.

    Args:
        slots_N: Number of each token's sample, from 0 on and never falling; each sample has a token.
    """
    lengths = torch.bincount(slots_N)
    firsts = lengths.cumsum(0) - lengths
    # A length of 2 to the power n is the longest of its class.
    classes = torch.ceil(torch.log2(lengths.double())).long()
    blocks: list[Block] = []
    for number in torch.unique(classes).tolist():
        members = (classes == number).nonzero()[:, 0]
        place_L = torch.arange(int(lengths[members].max()), device=slots_N.device)
        valid_BL = place_L < lengths[members, None]
        blocks.append(Block(tokens_BL=(firsts[members, None] + place_L) * valid_BL, valid_BL=valid_BL))
    taken_N = torch.cat([block.tokens_BL[block.valid_BL] for block in blocks])
    order_N = torch.empty_like(taken_N)
    order_N[taken_N] = torch.arange(len(taken_N), device=slots_N.device)
    return Blocks(blocks=tuple(blocks), order_N=order_N)


def block_attention(blocks: Blocks, masks_BLL: Sequence[Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Attention of [N, H, D] queries, keys and values, where each block's mask is True: rows see columns.

    Every valid token must see something; what stands behind a sample's end is seen by nothing and dropped.
    """
    seen_BLL = [mask | torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device) for mask in masks_BLL]

    def attend(q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor) -> Tensor:
        parts = [
            F.scaled_dot_product_attention(
                *(block.take(values).transpose(1, 2) for values in (q_NHD, k_NHD, v_NHD)), attn_mask=mask.unsqueeze(1)
            ).transpose(1, 2)[block.valid_BL]
            for block, mask in zip(blocks.blocks, seen_BLL, strict=True)
        ]
        return torch.cat(parts)[blocks.order_N]

    return attend
