"""The bootstrap encoder's view of texts: hashed n-grams and a fixed projection, exact in any order.

Shape legend: B samples, T tokens, D embedding.
"""

from collections.abc import Mapping

import pyarrow as pa
import torch
from torch import Tensor, nn

from mm_assets.modalities.descriptors import padded
from mm_assets.modalities.text.bootstrap import BUCKETS, NGRAMS
from mm_assets.modalities.text.tokenizer import BYTE_OFFSET

HASH_PRIME = (1 << 31) - 1


def collect(column: pa.Array, shape: Mapping[str, int]) -> tuple[Tensor, ...]:
    """The inputs of ``Descriptor`` for the values of a column without nulls."""
    del shape
    return (torch.from_numpy(padded([value.values.to_numpy() for value in column])).long(),)


def misfit(shape: Mapping[str, int]) -> str | None:
    """What is expected of the tensors and not so: nothing."""
    del shape
    return None


class Descriptor(nn.Module):
    """Sums of the projections of a token sequence's n-grams; no n-gram holds specials (BOS, EOS, PAD).

    Source: hashing trick, Weinberger et al. 2009, over byte n-grams of lengths 2 to 5.
    """

    multipliers: Tensor
    projection: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.register_buffer("multipliers", tensors["multipliers"])
        self.register_buffer("projection", tensors["projection"].double())

    def forward(self, token_BT: Tensor) -> Tensor:
        """int64 tokens, padded with 0, to float64 whole numbers [B, D]."""
        total_BD = self.projection.new_zeros(len(token_BT), self.projection.shape[1])
        for row, length in enumerate(NGRAMS):
            if token_BT.shape[1] < length:
                continue
            grams = token_BT.unfold(1, length, 1)
            bucket_BT = (grams * self.multipliers[row, :length]).sum(-1) % HASH_PRIME % BUCKETS
            valid_BT = (grams >= BYTE_OFFSET).all(-1)
            total_BD += (self.projection[bucket_BT] * valid_BT[:, :, None]).sum(1)
        return total_BD
