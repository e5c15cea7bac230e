"""The bootstrap encoder: classical descriptors as torch modules, each followed by a fixed projection.

It stands in while the store has no trained model: alike inputs get alike embeddings, nothing more. Invariant: a
sample's embedding has the same bits for every batch size, thread count and CPU. All sums and matrix products run over
integers below 2**53 (held in float64) and are therefore exact in any order; what lies between (division, square root,
rounding) is elementwise and correctly rounded by IEEE 754. The argument holds for a GPU too; no test here has one.
Log-mel values enter as multiples of 1/1024.

Shape legend: B samples, T tokens or frames, H and W pixels, C channels, M mel bands, N descriptor values, D embedding.
"""

from collections.abc import Mapping

import safetensors.torch
import torch
from torch import Tensor, nn

from mm_assets.errors import StageError
from mm_assets.features.bootstrap import AUDIO_BLOCKS, IMAGE_BLOCKS, TEXT_BUCKETS, TEXT_NGRAMS
from mm_assets.features.image_signals import dct_basis
from mm_assets.features.mel import STEPS
from mm_assets.features.text import BYTE_OFFSET

#: Length every descriptor block is scaled to before it is rounded: large enough to keep three digits.
BLOCK_LENGTH = 1024.0
GRID = 4
DCT_SIDE, DCT_KEPT = 16, 8
MEL_GROUPS, SEGMENTS = 10, 8
LAGS = (1, 4, 16)
HASH_PRIME = (1 << 31) - 1


class ImageDescriptor(nn.Module):
    """Colour per cell, gradient directions per cell and low frequencies of a square RGB picture.

    Source: the cells of HOG (Dalal and Triggs 2005) with eight octants of direction, and the DCT of luma.
    """

    basis: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("basis", torch.from_numpy(dct_basis(DCT_SIDE, DCT_KEPT)).double(), persistent=False)

    def forward(self, image_BHWC: Tensor) -> Tensor:
        """uint8 pictures (H = W, a multiple of 16) to float64 descriptors of whole numbers."""
        pixels_BHWC = image_BHWC.long()
        luma_BHW = (pixels_BHWC * pixels_BHWC.new_tensor([77, 150, 29])).sum(-1) >> 8
        return torch.cat(
            [
                _scaled(_cells(pixels_BHWC - 128, GRID).flatten(1)),
                _scaled(_cells(_octants(luma_BHW), GRID).flatten(1)),
                _scaled(self._frequencies(luma_BHW)),
            ],
            dim=1,
        )

    def _frequencies(self, luma_BHW: Tensor) -> Tensor:
        small = _cells(luma_BHW.unsqueeze(-1), DCT_SIDE).squeeze(-1).double()
        coefficients = self.basis @ small @ self.basis.T
        # The basis holds 1024 times the cosines, twice; dividing keeps the squares below 2**53.
        return torch.round(coefficients.flatten(1)[:, 1:] / (1024.0 * 1024.0))


class AudioDescriptor(nn.Module):
    """Level, spread, movement and course in time of a log-mel spectrogram.

    ``movement`` is the mean absolute change over 1, 4 and 16 frames per band: how fast the clip is modulated.
    """

    def forward(self, mel_BTM: Tensor, length_B: Tensor) -> Tensor:
        """float32 spectrograms, zero-padded, and their numbers of frames (at least 1) to float64 descriptors."""
        steps_BTM = torch.round(mel_BTM.double() * STEPS)
        valid_BT = torch.arange(mel_BTM.shape[1], device=mel_BTM.device)[None] < length_B[:, None]
        steps_BTM = steps_BTM * valid_BT[:, :, None]
        count_B1 = length_B[:, None].double()
        sum_BM = steps_BTM.sum(1)
        squares_BM = (steps_BTM * steps_BTM).sum(1)
        level_B1 = torch.round(sum_BM.sum(1, keepdim=True) / (count_B1 * sum_BM.shape[1]))
        spread_BM = torch.sqrt((squares_BM * count_B1 - sum_BM * sum_BM).clamp(min=0)) / count_B1
        return torch.cat(
            [
                _scaled(sum_BM / count_B1 - level_B1),
                _scaled(spread_BM),
                _scaled(torch.cat([_movement(steps_BTM, valid_BT, lag) for lag in LAGS], dim=1)),
                _scaled(_course(steps_BTM, length_B) - level_B1),
            ],
            dim=1,
        )


class TextDescriptor(nn.Module):
    """Buckets of the hashed n-grams of a token sequence; specials (BOS, EOS, PAD) are no part of any.

    Source: hashing trick, Weinberger et al. 2009, over byte n-grams of lengths 2 to 5.
    """

    multipliers: Tensor

    def __init__(self, multipliers: Tensor) -> None:
        super().__init__()
        self.register_buffer("multipliers", multipliers)

    def forward(self, token_BT: Tensor) -> list[tuple[Tensor, Tensor]]:
        """int64 tokens, padded with 0, to one (bucket, is valid) pair of [B, T'] tensors per n-gram length."""
        found: list[tuple[Tensor, Tensor]] = []
        for row, length in enumerate(TEXT_NGRAMS):
            if token_BT.shape[1] < length:
                continue
            grams = token_BT.unfold(1, length, 1)
            hashed = (grams * self.multipliers[row, :length]).sum(-1) % HASH_PRIME
            found.append((hashed % TEXT_BUCKETS, (grams >= BYTE_OFFSET).all(-1)))
        return found


class BootstrapEncoder(nn.Module):
    """The three descriptors and their projections to unit vectors of one length."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.image = ImageDescriptor()
        self.audio = AudioDescriptor()
        self.text = TextDescriptor(tensors["text.multipliers"])
        self.projections = nn.ParameterDict(
            {
                name: nn.Parameter(tensors[f"{name}.projection"].double(), requires_grad=False)
                for name in ("text", "image", "audio")
            }
        )

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.projections["image"].shape[1]

    def encode_image(self, image_BHWC: Tensor) -> Tensor:
        """uint8 pictures to float32 unit vectors [B, D]."""
        return _unit(self.image(image_BHWC) @ self.projections["image"])

    def encode_audio(self, mel_BTM: Tensor, length_B: Tensor) -> Tensor:
        """Zero-padded log-mel spectrograms to float32 unit vectors [B, D]."""
        return _unit(self.audio(mel_BTM, length_B) @ self.projections["audio"])

    def encode_text(self, token_BT: Tensor) -> Tensor:
        """Zero-padded token ids to float32 unit vectors [B, D]."""
        total_BD = torch.zeros(len(token_BT), self.dim, dtype=torch.float64, device=token_BT.device)
        for bucket_BT, valid_BT in self.text(token_BT):
            total_BD += (self.projections["text"][bucket_BT] * valid_BT[:, :, None]).sum(1)
        return _unit(total_BD)


def load_encoder(data: bytes, *, dim: int, digest: str) -> BootstrapEncoder:
    """The encoder in a safetensors file whose digest was verified.

    Raises:
        StageError: the file holds other tensors than ``bootstrap`` writes for ``dim``.
    """
    tensors = safetensors.torch.load(data)
    expected = {
        "audio.projection": [sum(AUDIO_BLOCKS.values()), dim],
        "image.projection": [sum(IMAGE_BLOCKS.values()), dim],
        "text.multipliers": [len(TEXT_NGRAMS), max(TEXT_NGRAMS)],
        "text.projection": [TEXT_BUCKETS, dim],
    }
    actual = {name: list(tensor.shape) for name, tensor in sorted(tensors.items())}
    if actual != expected:
        raise StageError(
            f"encoder {digest}: is no bootstrap encoder of {dim} dimensions: expected {expected}, got {actual}. "
            "Open a release with the encoder of its recipe."
        )
    return BootstrapEncoder(tensors).eval()


def _cells(values_BHWC: Tensor, grid: int) -> Tensor:
    """Sums over ``grid`` x ``grid`` cells: [B, grid, grid, C]."""
    batch, height, width, channels = values_BHWC.shape
    return values_BHWC.reshape(batch, grid, height // grid, grid, width // grid, channels).sum((2, 4))


def _octants(luma_BHW: Tensor) -> Tensor:
    """|gx| + |gy| of every inner pixel, in the channel of its gradient's octant: [B, H, W, 8]; the border is 0."""
    gx = nn.functional.pad(luma_BHW[:, 1:-1, 2:] - luma_BHW[:, 1:-1, :-2], (1, 1, 1, 1))
    gy = nn.functional.pad(luma_BHW[:, 2:, 1:-1] - luma_BHW[:, :-2, 1:-1], (1, 1, 1, 1))
    octant = (gx >= 0).long() + 2 * (gy >= 0).long() + 4 * (gx.abs() >= gy.abs()).long()
    magnitude = gx.abs() + gy.abs()
    return nn.functional.one_hot(octant, 8) * magnitude.unsqueeze(-1)


def _movement(steps_BTM: Tensor, valid_BT: Tensor, lag: int) -> Tensor:
    """Mean |x(t + lag) - x(t)| per band; 0 for clips of at most ``lag`` frames."""
    if steps_BTM.shape[1] <= lag:
        return torch.zeros_like(steps_BTM[:, 0])
    pair_BT1 = (valid_BT[:, lag:]).unsqueeze(-1)
    change_BM = ((steps_BTM[:, lag:] - steps_BTM[:, :-lag]).abs() * pair_BT1).sum(1)
    return change_BM / pair_BT1.sum(1).clamp(min=1).double()


def _course(steps_BTM: Tensor, length_B: Tensor) -> Tensor:
    """Mean of ``MEL_GROUPS`` groups of bands in ``SEGMENTS`` equal parts of each clip: [B, segments x groups]."""
    batch, _, bands = steps_BTM.shape
    grouped = steps_BTM.reshape(batch, -1, MEL_GROUPS, bands // MEL_GROUPS).sum(-1)
    running = nn.functional.pad(grouped.cumsum(1), (0, 0, 1, 0))
    part = torch.arange(SEGMENTS, device=steps_BTM.device)[None]
    start = torch.div(part * length_B[:, None], SEGMENTS, rounding_mode="floor")
    stop = torch.maximum(torch.div((part + 1) * length_B[:, None], SEGMENTS, rounding_mode="floor"), start + 1)
    index = start.unsqueeze(-1).expand(-1, -1, MEL_GROUPS), stop.unsqueeze(-1).expand(-1, -1, MEL_GROUPS)
    sums = running.gather(1, index[1]) - running.gather(1, index[0])
    count = (stop - start).unsqueeze(-1).double() * (bands // MEL_GROUPS)
    return (sums / count).flatten(1)


def _scaled(block_BN: Tensor) -> Tensor:
    """Rows scaled to length ``BLOCK_LENGTH`` and rounded to whole numbers; a row of zeros stays one.

    Values are rounded before their squares are summed, so that the sum is exact.
    """
    whole = torch.round(block_BN.double())
    length = torch.sqrt((whole * whole).sum(1, keepdim=True)).clamp(min=1.0)
    return torch.round(whole * BLOCK_LENGTH / length)


def _unit(vector_BD: Tensor) -> Tensor:
    """Rows of whole numbers as float32 unit vectors; a row of zeros becomes the first axis."""
    empty = (vector_BD == 0).all(1, keepdim=True)
    first = torch.zeros_like(vector_BD)
    first[:, 0] = 1.0
    filled = torch.where(empty, first, vector_BD)
    return (filled / torch.sqrt((filled * filled).sum(1, keepdim=True))).float()
