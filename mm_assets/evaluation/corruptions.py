"""Damage of known strength, applied to the decoded features a model reads.

Severities run from 1 (hardly noticeable) to 5. The randomness of a corruption depends on (seed, corruption, severity,
sample id) alone, so a sample has the same damage in every release, order and batch. What each one is, and is not,
is written in the modality's ``corruptions``. ``drop_<modality>``: the modality is absent; it applies only where another
one remains.
"""

from dataclasses import replace

import numpy as np

from mm_assets.batching.samples import Sample
from mm_assets.evaluation.config import CorruptionConfig
from mm_assets.identity.randomness import keyed_rng
from mm_assets.modalities.parts import Parts, lengths_of, split
from mm_assets.modalities.table import MODALITIES, aspect


def damage(sample: Sample, corruption: CorruptionConfig, severity: int, seed: int) -> Sample:
    """A damaged copy of ``sample``; one that lacks the modality, or has nothing of it, comes back as it is."""
    modality = corruption.modality
    value = sample.tensors.get(modality)
    if value is None:
        return sample
    kept = {name: tensor for name, tensor in sample.tensors.items() if name != modality}
    if corruption.is_drop:
        parts = None if sample.parts is None else tuple(part for part in sample.parts if part[0] != modality)
        return replace(sample, tensors=kept, parts=parts)
    if not value.size:
        return sample
    rng = corruption_rng(seed, corruption.name, severity, sample.id)
    change = aspect(modality, "corruptions").CORRUPTIONS[corruption.name]
    if sample.parts is None:
        return replace(sample, tensors=kept | {modality: change(value, severity, rng)})
    parts = [change(part, severity, rng) for part in split(modality, value, lengths_of(sample.parts, modality))]
    return replace(
        sample,
        tensors=kept | {modality: np.concatenate(parts)},
        parts=_relength(sample.parts, modality, [len(part) for part in parts]),
    )


def _relength(parts: Parts, modality: str, lengths: list[int]) -> Parts:
    """Parts with other lengths of one modality, unless all of its tensors are equally long."""
    if MODALITIES[modality].length_column is None:
        return parts
    new = iter(lengths)
    return tuple((name, next(new) if name == modality else length) for name, length in parts)


def corruption_rng(seed: int, name: str, severity: int, sample_id: str) -> np.random.Generator:
    """The randomness one sample is damaged with."""
    return keyed_rng("evaluation", seed, name, severity, sample_id)
