"""What decides a batch plan's bytes: the configuration's section ``plan``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: What samples are grouped by where groups are weighted.
GroupedBy = Literal["source", "language", "label", "modalities"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseConfig:
    """Some epochs of a run, and how often each sample is in one of them.

    An epoch of a phase has as many samples as the phase's share of the data; where groups are weighted, samples of a
    group with more weight occur more often than others. The defaults are every sample once.

    Attributes:
        num_epochs: Epochs before the next phase begins; the last phase goes on until the run ends.
        share: Part of the samples that takes part, chosen by the seed; a smaller share is part of a larger one.
        group_by: What ``temperature`` and ``weights`` are about; None weighs nothing.
        temperature: A group of n samples weighs n to the power of 1 / temperature: 1 keeps the shares of the data,
            large values make them equal.
        weights: Factor of a group's weight by its value, ``(none)`` where samples have none; 1 where not named.
    """

    num_epochs: int = 1
    share: float = 1.0
    group_by: GroupedBy | None = None
    temperature: float = 1.0
    weights: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanConfig:
    """How samples become packs, and packs become steps. Every field is identity.

    Attributes:
        num_lanes: Fixed virtual ranks; a power of two. Any number of processes that divides it computes the same.
        pack_tokens: Length of a pack; no sample may be longer. Several times the longest sample leaves little padding.
        packs_per_lane: Packs each lane sees per step, so a step holds ``num_lanes * packs_per_lane`` packs.
        num_steps: Steps of the run; as many epochs as that takes, the last one cut. None: exactly ``num_epochs``.
        num_epochs: Passes over the data where ``num_steps`` is None.
        phases: What the epochs consist of, in order; without any, each holds every sample once.
        window: Samples of one lane that are shuffled and packed together.
        block: Rows that stay together on their way to a lane, so that reading them is sequential.
        image_patch: Side of the square patch that becomes one token, pixels.
        video_patch: The same of a video's frames.
        audio_stack: Log-mel frames that become one token.
    """

    num_lanes: int = 4
    pack_tokens: int = 1024
    packs_per_lane: int = 1
    num_steps: int | None = 300
    num_epochs: int = 1
    phases: tuple[PhaseConfig, ...] = ()
    window: int = 1024
    block: int = 16
    image_patch: int = 8
    video_patch: int = 16
    audio_stack: int = 8
