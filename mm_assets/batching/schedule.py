"""The order of training as a pure function: length columns, counts and a seed in, arrays out.

No I/O, no global shuffle: blocks of neighbouring rows are dealt to lanes by a keyed permutation of the blocks, and each
lane shuffles one window of its own samples at a time and packs it. What does not fill a pack waits for the next window,
also across epochs. Nothing here knows how many processes will follow the plan.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mm_assets.batching.config import PlanConfig
from mm_assets.batching.packing import pack_items
from mm_assets.batching.rows import CLS_TOKENS
from mm_assets.errors import StageError
from mm_assets.identity.randomness import keyed_rng
from mm_assets.modalities.table import NAMES

Ints = npt.NDArray[np.int32]
#: Packs' worth of samples that stay in a lane's pool, so that the last room of a pack finds what fills it.
KEPT_PACKS = 4
#: Slots that are held as arrays at a time, about.
CHUNK_SLOTS = 1 << 18


@dataclass(frozen=True, kw_only=True, slots=True)
class Slots:
    """Rows of a plan as equally long arrays, sorted by (step, lane, pack, slot).

    ``position`` is the sample's among those that are planned, ``start`` its first token in the pack.
    """

    epoch: Ints
    step: Ints
    lane: Ints
    pack: Ints
    slot: Ints
    position: Ints
    start: Ints


def total_lengths(tokens: Mapping[str, Ints]) -> Ints:
    """Length of each sample in a pack, by its tokens of every modality: those and one CLS token."""
    total = np.full(len(next(iter(tokens.values()))), CLS_TOKENS, np.int32)
    for name in NAMES:
        total += tokens[name]
    return total


def schedule(total: Ints, epochs: Iterable[npt.NDArray[np.int32]], config: PlanConfig, seed: int) -> Iterator[Slots]:
    """Every step of a run, in order, many steps at a time.

    Args:
        total: Length of each sample.
        epochs: How often each sample is in each epoch; without end where ``config.num_steps`` says when to stop.
        config: The plan's.
        seed: The run's.

    Raises:
        StageError: there is nothing to train on.
    """
    if len(total) == 0:
        raise StageError("batch plan: no sample is selected for training. Check the curation policy and the splits.")
    passes = _Passes(total, epochs, config, seed)
    lanes = [_Lane(total, passes, config, seed=seed, lane=lane) for lane in range(config.num_lanes)]
    slots_per_step = max(1, int(config.pack_tokens / total.mean())) * config.packs_per_lane * config.num_lanes
    chunk_steps = max(1, CHUNK_SLOTS // slots_per_step)
    step = 0
    while config.num_steps is None or step < config.num_steps:
        num_steps = chunk_steps if config.num_steps is None else min(chunk_steps, config.num_steps - step)
        chunk = _merged(
            [lane.take(num_steps * config.packs_per_lane) for lane in lanes], total, config, first_step=step
        )
        if not len(chunk.step):
            return
        yield chunk
        step += num_steps


def deal_to_lanes(members: Ints, total: Ints, config: PlanConfig, *, key: tuple[int, ...]) -> list[Ints]:
    """Members per lane: blocks of neighbours in keyed order, cut where each lane has its share of all tokens."""
    num_blocks = -(-len(members) // config.block)
    blocks = keyed_rng("plan.blocks", *key).permutation(num_blocks).astype(np.int32)
    order = (blocks[:, None] * config.block + np.arange(config.block, dtype=np.int32)).ravel()
    order = members[order[order < len(members)]]
    lengths = total[order].astype(np.int64)
    # The middle of a sample decides its lane, so lanes differ by less than one sample.
    middle = np.cumsum(lengths) - lengths / 2
    cuts = np.searchsorted(middle * config.num_lanes, lengths.sum() * np.arange(1, config.num_lanes))
    dealt = np.split(order, cuts)
    # Of fewer samples than lanes some lanes get none: not the same ones in every epoch.
    first = int(keyed_rng("plan.lanes", *key).integers(config.num_lanes))
    return dealt[first:] + dealt[:first]


class _Passes:
    """The members of each lane, pass by pass; an epoch has as many passes as its most frequent sample occurs."""

    def __init__(self, total: Ints, epochs: Iterable[npt.NDArray[np.int32]], config: PlanConfig, seed: int) -> None:
        self._total = total
        self._config = config
        self._members = self._split(epochs, seed)
        self._dealt: dict[int, tuple[tuple[int, int], list[Ints]]] = {}
        self._first = 0
        self._at = [0] * config.num_lanes

    def next(self, lane: int) -> tuple[tuple[int, int], Ints] | None:
        """Epoch and number of the lane's next pass, and its members in it; None at the end."""
        number = self._at[lane]
        if number == self._first + len(self._dealt):
            following = next(self._members, None)
            if following is None:
                return None
            self._dealt[number] = following
        self._at[lane] += 1
        key, dealt = self._dealt[number]
        while self._dealt and min(self._at) > self._first:
            del self._dealt[self._first]
            self._first += 1
        return key, dealt[lane]

    def _split(
        self, epochs: Iterable[npt.NDArray[np.int32]], seed: int
    ) -> Iterator[tuple[tuple[int, int], list[Ints]]]:
        for epoch, counts in enumerate(epochs):
            for number in range(int(counts.max())):
                members = np.flatnonzero(counts > number).astype(np.int32)
                key = (epoch, number)
                yield key, deal_to_lanes(members, self._total, self._config, key=(seed, *key))


class _Lane:
    """The packs of one lane, window by window."""

    def __init__(self, total: Ints, passes: _Passes, config: PlanConfig, *, seed: int, lane: int) -> None:
        self._total = total
        self._config = config
        self._windows = self._shuffled(passes, seed, lane)
        self._pool = self._pool_epoch = np.zeros(0, np.int32)
        self._is_over = False
        # Slots that are packed and not yet taken: positions, epochs, and how many of them each pack has.
        self._ready, self._ready_epoch, self._sizes = (np.zeros(0, np.int32) for _ in range(3))

    def take(self, num_packs: int) -> tuple[Ints, Ints, Ints]:
        """Positions and epochs of the next packs' samples, and how many each pack has; fewer packs at the end."""
        while len(self._sizes) < num_packs and not self._is_over:
            self._pack_window()
        num_slots = int(self._sizes[:num_packs].sum())
        taken = self._ready[:num_slots], self._ready_epoch[:num_slots], self._sizes[:num_packs]
        self._ready, self._ready_epoch = self._ready[num_slots:], self._ready_epoch[num_slots:]
        self._sizes = self._sizes[num_packs:]
        return taken

    def _pack_window(self) -> None:
        following = next(self._windows, None)
        self._is_over = following is None
        if following is not None:
            epoch, members = following
            self._pool = np.concatenate([self._pool, members])
            self._pool_epoch = np.concatenate([self._pool_epoch, np.full(len(members), epoch, np.int32)])
        capacity = self._config.pack_tokens
        packs, rest = pack_items(
            self._total[self._pool].tolist(), capacity, keep=0 if self._is_over else KEPT_PACKS * capacity
        )
        order = np.array([item for pack in packs for item in pack], np.int64)
        self._ready = np.concatenate([self._ready, self._pool[order]])
        self._ready_epoch = np.concatenate([self._ready_epoch, self._pool_epoch[order]])
        self._sizes = np.concatenate([self._sizes, np.array([len(pack) for pack in packs], np.int32)])
        self._pool, self._pool_epoch = self._pool[rest], self._pool_epoch[rest]

    def _shuffled(self, passes: _Passes, seed: int, lane: int) -> Iterator[tuple[int, Ints]]:
        while (following := passes.next(lane)) is not None:
            key, members = following
            for number, first in enumerate(range(0, len(members), self._config.window)):
                window = members[first : first + self._config.window]
                rng = keyed_rng("plan.window", seed, *key, lane, number)
                yield key[0], window[rng.permutation(len(window))]


def _merged(lanes: list[tuple[Ints, Ints, Ints]], total: Ints, config: PlanConfig, *, first_step: int) -> Slots:
    """The packs of all lanes for the same steps as one table."""
    parts = [_columns(lane, *taken, total) for lane, taken in enumerate(lanes)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    step, pack = np.divmod(columns.pop("number"), np.int32(config.packs_per_lane))
    order = np.argsort(step * np.int64(config.num_lanes) + columns["lane"], kind="stable")
    columns |= {"step": step + first_step, "pack": pack}
    return Slots(**{name: values[order].astype(np.int32) for name, values in columns.items()})


def _columns(lane: int, position: Ints, epoch: Ints, sizes: Ints, total: Ints) -> dict[str, npt.NDArray[np.integer]]:
    """The columns of one lane's slots; ``number`` counts its packs."""
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)
    ends = np.cumsum(total[position], dtype=np.int64)
    starts = ends - total[position]
    return {
        "epoch": epoch,
        "lane": np.full(len(position), lane, np.int32),
        "number": np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
        "slot": np.arange(len(position)) - first,
        "position": position,
        "start": starts - starts[first],
    }
