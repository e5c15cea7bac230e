"""The bootstrap encoder's view of clips: a classical descriptor and a fixed projection, exact in any order.

Shape legend: B samples, T frames, H and W pixels, C channels, M mel bands, N descriptor values, D embedding.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from mm_assets.modalities.audio.bootstrap import BLOCKS
from mm_assets.modalities.audio.mel import STEPS
from mm_assets.modalities.descriptors import padded, scaled

MEL_GROUPS, SEGMENTS = 10, 8
LAGS = (1, 4, 16)


def collect(column: pa.Array, shape: Mapping[str, int]) -> tuple[Tensor, ...]:
    """The inputs of ``Descriptor`` for the values of a column without nulls."""
    clips = [np.frombuffer(value.as_buffer(), "<f4").reshape(-1, shape["num_mels"]) for value in column]
    lengths = torch.tensor([len(clip) for clip in clips])
    return torch.from_numpy(padded(clips)), lengths


def misfit(shape: Mapping[str, int]) -> str | None:
    """What is expected of the tensors and not so."""
    if shape["num_mels"] != BLOCKS["mean"]:
        return f"{BLOCKS['mean']} mel bands, got {shape['num_mels']}"
    return None


class Descriptor(nn.Module):
    """Level, spread, movement and course in time of a log-mel spectrogram.

    ``movement`` is the mean absolute change over 1, 4 and 16 frames per band: how fast the clip is modulated.
    """

    projection: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.register_buffer("projection", tensors["projection"].double())

    def forward(self, mel_BTM: Tensor, length_B: Tensor) -> Tensor:
        """float32 spectrograms, zero-padded, and their numbers of frames (at least 1) to float64 [B, D]."""
        steps_BTM = torch.round(mel_BTM.double() * STEPS)
        valid_BT = torch.arange(mel_BTM.shape[1], device=mel_BTM.device)[None] < length_B[:, None]
        steps_BTM = steps_BTM * valid_BT[:, :, None]
        count_B1 = length_B[:, None].double()
        sum_BM = steps_BTM.sum(1)
        squares_BM = (steps_BTM * steps_BTM).sum(1)
        level_B1 = torch.round(sum_BM.sum(1, keepdim=True) / (count_B1 * sum_BM.shape[1]))
        spread_BM = torch.sqrt((squares_BM * count_B1 - sum_BM * sum_BM).clamp(min=0)) / count_B1
        descriptor_BN = torch.cat(
            [
                scaled(sum_BM / count_B1 - level_B1),
                scaled(spread_BM),
                scaled(torch.cat([_movement(steps_BTM, valid_BT, lag) for lag in LAGS], dim=1)),
                scaled(_course(steps_BTM, length_B) - level_B1),
            ],
            dim=1,
        )
        return descriptor_BN @ self.projection


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
