"""Lanes: how one training run gives the same bits on any number of processes.

A run has L fixed lanes. Each lane's gradient is a function of (weights, seed, step, lane). Gradients are added in one
fixed binary tree over the lanes; a process holds a whole subtree, and the levels above it are exchanged pairwise.
Addition of two floats commutes, so both partners of an exchange get the same bits.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, distributed

from mm_assets.errors import StageError
from mm_assets.identity.canonical import Json
from mm_assets.identity.randomness import keyed_rng
from mm_assets.modalities.device import num_accelerators


def world_size_of(placement: Mapping[str, Json], num_lanes: int) -> int:
    """How many processes train: one per accelerator; as many as asked for; else what the processors allow.

    Raises:
        StageError: what was asked for does not divide the lanes, or accelerators would stay idle.
    """
    accelerators, asked = num_accelerators(placement), placement.get("world_size")
    if accelerators and asked is not None and int(str(asked)) != accelerators:
        raise StageError(
            f"model: has one process per accelerator: expected MM_WORLD_SIZE unset or {accelerators}, the accelerators "
            f"of its resources, got {asked}. Correct one of them."
        )
    if not accelerators and asked is None:
        return min(1 << (max(1, int(str(placement.get("cpus", 1)))).bit_length() - 1), num_lanes)
    world_size = accelerators or int(str(asked))
    if num_lanes % world_size:
        raise StageError(
            f"model: {num_lanes} lanes cannot be shared by {world_size} processes: expected a number of processes that "
            f"divides {num_lanes}, got {world_size}. Change accelerators of the asset model in resources.yaml, or "
            "MM_WORLD_SIZE, or plan.num_lanes of the configuration."
        )
    return world_size


def num_workers(placement: Mapping[str, Json], world_size: int) -> int:
    """How many processes read ahead for each rank: what processors accelerators leave idle; none where ranks need them.

    A rank that computes on a processor is slower beside a reader, not faster.
    """
    if not num_accelerators(placement):
        return 0
    return max(1, int(str(placement.get("cpus", 1))) // world_size - 1)


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
        # Both in one call: NCCL would wait for the partner at each of them alone.
        operations = [
            distributed.P2POp(distributed.isend, value, partner),
            distributed.P2POp(distributed.irecv, other, partner),
        ]
        for pending in distributed.batch_isend_irecv(operations):
            pending.wait()
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
