"""The order of training as a pure function: length columns, a seed and an epoch in, arrays out.

No I/O, no global shuffle: blocks of neighbouring rows are dealt to lanes by a keyed permutation of the blocks, and each
lane shuffles and packs one window of its own samples at a time. Nothing here knows how many processes will follow it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from mm_assets.batching.config import PlanConfig
from mm_assets.batching.packing import pack_best_fit
from mm_assets.batching.rows import CLS_TOKENS
from mm_assets.errors import StageError
from mm_assets.identity.randomness import keyed_rng
from mm_assets.modalities.table import NAMES

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """Tokens per candidate sample, by modality; equally long arrays, one for every modality."""

    tokens: Mapping[str, Ints]

    @property
    def total(self) -> Ints:
        """Length of each sample in a pack: its modalities and one CLS token."""
        return CLS_TOKENS + np.stack([self.tokens[name] for name in NAMES]).sum(axis=0)

    @property
    def combination(self) -> Ints:
        """Bit set of the modalities present, the first of the table in the lowest bit."""
        present_MN = np.stack([self.tokens[name] > 0 for name in NAMES])
        return (1 << np.arange(len(NAMES))) @ present_MN


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One optimizer step: per lane the packs, each a list of positions in ``Lengths``. A lane may be empty."""

    epoch: int
    lanes: list[list[list[int]]]


def schedule(lengths: Lengths, config: PlanConfig, seed: int) -> Iterator[Step]:
    """Every step of a run.

    Raises:
        StageError: there is nothing to train on.
    """
    if len(lengths.total) == 0:
        raise StageError("batch plan: no sample is selected for training. Check the curation policy and the splits.")
    return islice(_all_steps(lengths, config, seed), config.num_steps)


def _all_steps(lengths: Lengths, config: PlanConfig, seed: int) -> Iterator[Step]:
    epoch = 0
    while config.num_steps is not None or epoch < config.num_epochs:
        lanes = plan_epoch(lengths, config, seed=seed, epoch=epoch)
        size = config.packs_per_lane
        for first in range(0, max(len(packs) for packs in lanes), size):
            yield Step(epoch=epoch, lanes=[packs[first : first + size] for packs in lanes])
        epoch += 1


def plan_epoch(lengths: Lengths, config: PlanConfig, *, seed: int, epoch: int) -> list[list[list[int]]]:
    """Per lane, its packs of one epoch; every sample is in exactly one pack."""
    total = lengths.total
    return [
        [
            pack
            for number, first in enumerate(range(0, len(members), config.window))
            for pack in _pack_window(
                members[first : first + config.window], lengths, config, key=(seed, epoch, lane, number)
            )
        ]
        for lane, members in enumerate(deal_to_lanes(total, config, seed=seed, epoch=epoch))
    ]


def steps_per_epoch(lengths: Lengths, config: PlanConfig, *, seed: int, epoch: int = 0) -> int:
    """Steps that a whole epoch takes; the packing makes epochs differ by a step or two."""
    lanes = plan_epoch(lengths, config, seed=seed, epoch=epoch)
    return -(-max(len(packs) for packs in lanes) // config.packs_per_lane)


def deal_to_lanes(total: Ints, config: PlanConfig, *, seed: int, epoch: int) -> list[Ints]:
    """Positions per lane: blocks of rows in keyed order, cut where each lane has its share of all tokens."""
    num_blocks = -(-len(total) // config.block)
    blocks = keyed_rng("plan.blocks", seed, epoch).permutation(num_blocks)
    order = (blocks[:, None] * config.block + np.arange(config.block)).ravel()
    order = order[order < len(total)]
    # The middle of a sample decides its lane, so lanes differ by less than one sample.
    middle = np.cumsum(total[order]) - total[order] / 2
    lane = np.minimum(middle * config.num_lanes // total.sum(), config.num_lanes - 1).astype(np.int64)
    return [order[lane == index] for index in range(config.num_lanes)]


def _pack_window(
    members: Ints, lengths: Lengths, config: PlanConfig, *, key: tuple[int, int, int, int]
) -> list[list[int]]:
    """Packs of one window in keyed order.

    Samples of one modality combination are packed next to each other, the richest first, so that a pack holds pairs
    to align; what is left of their packs is filled by the next combination.
    """
    rng = keyed_rng("plan.window", *key)
    members = members[rng.permutation(len(members))]
    total = lengths.total[members]
    order = np.lexsort((-total, -lengths.combination[members]))
    packs = pack_best_fit(total.tolist(), order.tolist(), config.pack_tokens)
    return [members[packs[number]].tolist() for number in rng.permutation(len(packs))]
