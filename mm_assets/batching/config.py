"""What decides a batch plan's bytes: the configuration's section ``plan``."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanConfig:
    """How samples become packs, and packs become steps. Every field is identity.

    Attributes:
        num_lanes: Fixed virtual ranks; a power of two. Any number of processes that divides it computes the same.
        pack_tokens: Length of a pack; no sample may be longer.
        packs_per_lane: Packs each lane sees per step, so a step holds ``num_lanes * packs_per_lane`` packs.
        num_steps: Steps of the run; as many epochs as that takes, the last one cut. None: exactly ``num_epochs``.
        num_epochs: Passes over the data where ``num_steps`` is None.
        window: Samples of one lane that are shuffled and packed together.
        block: Rows that stay together on their way to a lane, so that reading them is sequential.
        image_patch: Side of the square patch that becomes one token, pixels.
        video_patch: The same of a video's frames.
        audio_stack: Log-mel frames that become one token.
    """

    num_lanes: int = 4
    pack_tokens: int = 512
    packs_per_lane: int = 2
    num_steps: int | None = 300
    num_epochs: int = 1
    window: int = 1024
    block: int = 16
    image_patch: int = 8
    video_patch: int = 16
    audio_stack: int = 8
