"""A batch as tensors of one device: the tokens of all its samples as one list without padding, and where what is.

Every index that a forward pass needs is computed here, from arrays on the CPU: the network itself never waits for the
device to say how many there are of something, and can be run on tensors that have no values.

Legend of shapes: N tokens, X tokens of a modality, S samples, R samples that have a modality, M modalities; B samples
of a block and L longest of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mm_assets.batching.collate import NO_LABEL, Batch
from mm_assets.modalities.kinds import CLS, KIND_OF, PAD

Device = torch.device | str
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Samples of about one length, to be attended together.

    Attributes:
        tokens_BL: Number of each sample's tokens in the list; 0 behind its end.
        valid_BL: Which of these are tokens.
    """

    tokens_BL: Tensor
    valid_BL: Tensor

    def take(self, values_N: Tensor) -> Tensor:
        """The values of the block's tokens, [B, L, ...]."""
        return values_N.index_select(0, self.tokens_BL.reshape(-1)).unflatten(0, self.tokens_BL.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The tokens of one modality.

    Attributes:
        at_X: Their numbers in the list.
        alive_Y: The numbers of those of samples that are not dead.
        row_Y: Of which of the samples R each of these is.
        rows_R: Numbers of the samples that have the modality, rising.
        count_R: How many tokens of it each of them has.
        follows_Z: Which of X have the next token of their text behind them.
    """

    at_X: Tensor
    alive_Y: Tensor
    row_Y: Tensor
    rows_R: Tensor
    count_R: Tensor
    follows_Z: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What the network reads; ``values``, ``parts`` and the columns of ``presence_SM`` are in the table's order.

    ``slots_N`` numbers the samples of the tokens from 0 on, dead ones included, which ``is_alive_N`` tells from the
    others. ``visible_SM`` hides a sample's modality from the fused layers where it is False. ``order_N`` leads from the
    rows of all blocks, one behind the other, back to the list.
    """

    slots_N: Tensor
    is_alive_N: Tensor
    kinds_N: Tensor
    positions_N: Tensor
    places_N: Tensor
    cls_S: Tensor
    labels_S: Tensor
    labelled_R: Tensor
    presence_SM: Tensor
    visible_SM: Tensor
    order_N: Tensor
    blocks: tuple[Block, ...]
    parts: Mapping[str, Part]
    values: Mapping[str, Tensor]


def to_inputs(batch: Batch, device: Device = "cpu") -> Inputs:
    """The tensors of a collated batch, nothing hidden."""
    is_token = batch.kinds_PT > PAD
    kinds = batch.kinds_PT[is_token]
    # Slots lie one behind the other, and each begins with its CLS.
    slots = np.cumsum(kinds == CLS) - 1
    alive = batch.segments_PT[is_token] > 0
    positions = batch.positions_PT[is_token]
    order, blocks = _blocks(slots)
    presence_SM = to_device(batch.presence_SM, device)
    return Inputs(
        slots_N=to_device(slots, device),
        is_alive_N=to_device(alive, device),
        kinds_N=to_device(kinds, device),
        positions_N=to_device(positions, device),
        places_N=to_device(batch.places_PT[is_token], device),
        cls_S=to_device(np.flatnonzero(kinds == CLS), device),
        labels_S=to_device(batch.labels_S, device),
        labelled_R=to_device(np.flatnonzero(batch.labels_S != NO_LABEL), device),
        presence_SM=presence_SM,
        visible_SM=presence_SM,
        order_N=to_device(order, device),
        blocks=tuple(
            Block(tokens_BL=to_device(tokens, device), valid_BL=to_device(valid, device)) for tokens, valid in blocks
        ),
        parts={name: _part(name, kinds, slots, alive, positions, device) for name in batch.values},
        values={name: to_device(values, device) for name, values in batch.values.items()},
    )


def to_device(values: npt.NDArray[Any], device: Device) -> Tensor:
    """The array as a tensor of that device."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if torch.device(device).type == "cuda" and torch.cuda.is_available():
        # Pinned memory is copied while the device computes.
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _blocks(slots: Ints) -> tuple[Ints, list[tuple[Ints, npt.NDArray[np.bool_]]]]:
    """Blocks of samples whose lengths are from one power of two to the next, so that a row is at most half empty."""
    lengths = np.bincount(slots)
    firsts = np.cumsum(lengths) - lengths
    classes = np.ceil(np.log2(lengths))
    order = np.empty(len(slots), np.int64)
    blocks: list[tuple[Ints, npt.NDArray[np.bool_]]] = []
    num_rows = 0
    for number in np.unique(classes):
        members = np.flatnonzero(classes == number)
        place = np.arange(lengths[members].max())
        valid = place < lengths[members, None]
        tokens = (firsts[members, None] + place) * valid
        order[tokens[valid]] = num_rows + np.flatnonzero(valid)
        num_rows += valid.size
        blocks.append((tokens, valid))
    return order, blocks


def _part(name: str, kinds: Ints, slots: Ints, alive: npt.NDArray[np.bool_], positions: Ints, device: Device) -> Part:
    at = np.flatnonzero(kinds == KIND_OF[name])
    living = at[alive[at]]
    rows, row, count = np.unique(slots[living], return_inverse=True, return_counts=True)
    follows = np.flatnonzero((positions[at][1:] == positions[at][:-1] + 1) & alive[at][:-1])
    columns = {
        "at_X": at, "alive_Y": living, "row_Y": row, "rows_R": rows, "count_R": count, "follows_Z": follows,
    }  # fmt: skip
    return Part(**{field: to_device(values, device) for field, values in columns.items()})
