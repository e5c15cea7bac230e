"""Random changes of a batch's inputs, keyed by (seed, step, lane): the same whichever process holds the lane."""

from dataclasses import replace

import numpy as np
import torch

from mm_assets.batching.collate import MODALITIES, TEXT, Batch
from mm_assets.features.text import BYTE_OFFSET, MASK
from mm_assets.identity.randomness import keyed_rng
from mm_assets.training.config import AugmentConfig
from mm_assets.training.network import Inputs, to_inputs

WHITE = 255


def augment(batch: Batch, config: AugmentConfig, *, seed: int, step: int, lane: int) -> Inputs:
    """The batch's tensors as the model sees them at this step."""
    rng = keyed_rng("augment", seed, step, lane)
    changed = replace(
        batch,
        images_NHWC=_colour(_shift(_flip(batch.images_NHWC, config, rng), config, rng), config, rng),
        audio_AF=_audio(batch.audio_AF, config, rng),
        tokens_PT=_mask_bytes(batch, config, rng),
    )
    return replace(to_inputs(changed), visible_SM=torch.from_numpy(_hide(batch.presence_SM, config, rng)))


def _flip(images: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    flipped = rng.random(len(images)) < config.flip
    return np.where(flipped[:, None, None, None], images[:, :, ::-1], images)


def _shift(images: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    if not config.shift or not len(images):
        return images
    margin = config.shift
    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)), constant_values=WHITE)
    offsets = rng.integers(0, 2 * margin + 1, (len(images), 2))
    height, width = images.shape[1:3]
    return np.stack([image[y : y + height, x : x + width] for image, (y, x) in zip(padded, offsets, strict=True)])


def _colour(images: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    factors = 1.0 + config.colour * rng.uniform(-1.0, 1.0, (len(images), 1, 1, 3))
    return np.clip(images * factors, 0, 255).astype(np.uint8)


def _audio(audio: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    noisy = audio + config.audio_noise * rng.standard_normal(audio.shape, np.float32)
    kept = rng.random((len(audio), 1)) >= config.audio_mask
    return (noisy * kept).astype(np.float32)


def _mask_bytes(batch: Batch, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    hit = rng.random(batch.tokens_PT.shape) < config.byte_mask
    return np.where(hit & (batch.kinds_PT == TEXT) & (batch.tokens_PT >= BYTE_OFFSET), MASK, batch.tokens_PT)


def _hide(presence: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Hides modalities at random; a sample of which nothing would be left keeps all it has."""
    visible = presence & (rng.random((len(presence), len(MODALITIES))) >= config.modality_dropout)
    return np.where(visible.any(axis=1, keepdims=True), visible, presence)
