"""Random changes of a batch's inputs, keyed by (seed, step, lane): the same whichever process holds the lane."""

from dataclasses import replace

import numpy as np

from mm_assets.batching.collate import Batch
from mm_assets.identity.randomness import keyed_rng
from mm_assets.modalities.kinds import KIND_OF
from mm_assets.modalities.table import PACKED, aspect
from mm_assets.training.config import AugmentConfig
from mm_assets.training.tokens import Device, Inputs, to_device, to_inputs


def augment(
    batch: Batch,
    config: AugmentConfig,
    *,
    seed: int,
    step: int,
    lane: int,
    device: Device = "cpu",
) -> Inputs:
    """The batch's tensors as the model sees them at this step."""
    rng = keyed_rng("augment", seed, step, lane)
    changed = {
        name: aspect(name, "augment").augment(batch.values[name], config, rng, part_lengths(batch, name))
        for name in PACKED
        if name in batch.values
    }
    values = {name: changed[name] for name in batch.values}
    inputs = to_inputs(replace(batch, values=values), device)
    return replace(inputs, visible_SM=to_device(_hide(batch.presence_SM, config, rng), device))


def part_lengths(batch: Batch, modality: str) -> list[int]:
    """How many of a modality's values each part of a sample has, in the order of the packs; dead samples have some."""
    is_own = batch.kinds_PT == KIND_OF[modality]
    packs = np.broadcast_to(np.arange(len(is_own))[:, None], is_own.shape)
    parts = np.stack([array[is_own] for array in (packs, batch.segments_PT, batch.places_PT)], axis=1)
    if not len(parts):
        return []
    ends = np.flatnonzero((parts[1:] != parts[:-1]).any(axis=1)) + 1
    num_tokens = np.diff(np.concatenate([[0], ends, [len(parts)]]))
    return (num_tokens * len(batch.values[modality]) // len(parts)).tolist()


def _hide(presence: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Hides modalities at random; a sample of which nothing would be left keeps all it has."""
    visible = presence & (rng.random(presence.shape) >= config.modality_dropout)
    return np.where(visible.any(axis=1, keepdims=True), visible, presence)
