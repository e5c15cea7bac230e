"""Lanes: how one training run gives the same bits on any number of processes.

A run has L fixed lanes. Each lane's gradient is a function of (weights, seed, step, lane). Gradients are added in one
fixed binary tree over the lanes; a process holds a whole subtree, and the levels above it are exchanged pairwise.
Addition of two floats commutes, so both partners of an exchange get the same bits.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed

from mm_assets.identity.randomness import keyed_rng


def usable_world_size(requested: int, num_lanes: int) -> int:
    """The largest power of two up to ``requested`` that divides ``num_lanes`` (itself a power of two)."""
    return min(1 << (max(1, requested).bit_length() - 1), num_lanes)


def lanes_of(rank: int, *, world_size: int, num_lanes: int) -> range:
    """The lanes of a process: neighbours, so that they form a subtree."""
    share = num_lanes // world_size
    return range(rank * share, (rank + 1) * share)


def tree_sum(values: Sequence[Tensor]) -> Tensor:
    """Sum of a power of two of tensors: neighbours first, then neighbouring sums."""
    level = list(values)
    while len(level) > 1:
        level = [level[index] + level[index + 1] for index in range(0, len(level), 2)]
    return level[0]


def exchange_sum(value: Tensor) -> Tensor:
    """The tree's levels above one process: each holds the sum over all processes afterwards."""
    if not distributed.is_initialized():
        return value
    rank, distance = distributed.get_rank(), 1
    while distance < distributed.get_world_size():
        partner = rank ^ distance
        other = torch.empty_like(value)
        sending = distributed.isend(value, partner)
        distributed.recv(other, partner)
        assert sending is not None
        sending.wait()
        value = value + other
        distance *= 2
    return value


def gather_lanes(own: Sequence[Tensor]) -> Tensor:
    """Every lane's tensor, stacked in the order of lanes; all have one shape."""
    stacked = torch.stack(list(own))
    if not distributed.is_initialized():
        return stacked
    parts = [torch.empty_like(stacked) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, stacked)
    return torch.cat(parts)


def gather_bytes(data: bytes) -> list[bytes]:
    """Every process's ``data``, by rank."""
    if not distributed.is_initialized():
        return [data]
    world_size = distributed.get_world_size()
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world_size)]
    distributed.all_gather(sizes, torch.tensor([len(data)]))
    longest = max(int(size) for size in sizes)
    padded = torch.frombuffer(bytearray(data.ljust(longest, b"\0")), dtype=torch.uint8)
    gathered = [torch.empty_like(padded) for _ in range(world_size)]
    distributed.all_gather(gathered, padded)
    return [bytes(part.numpy())[: int(size)] for part, size in zip(gathered, sizes, strict=True)]


def seed_lane(seed: int, step: int, lane: int) -> None:
    """Sets torch's randomness (dropout) for one lane of one step."""
    torch.manual_seed(int(keyed_rng("lane", seed, step, lane).integers(1 << 62)))
