"""What a batch plan is made from: a dataset release, the plan's parameters and the release's seed."""

from typing import get_args

from mm_assets.batching.config import GroupedBy, PhaseConfig, PlanConfig
from mm_assets.errors import SpecError
from mm_assets.features.config import FeaturesConfig
from mm_assets.identity.canonical import to_json
from mm_assets.releases.inputs import InputContext, Resolved

MAX_LANES = 1024
#: Longest pack: what fills its last room is found in bit masks of its length.
MAX_PACK_TOKENS = 1 << 17
GROUPS = get_args(GroupedBy)


def resolve_batch_plan(context: InputContext) -> Resolved:
    """What the partition's plan would be computed from now.

    Raises:
        CheckError: the dataset release did not pass its check. SpecError: the plan's parameters are unusable.
    """
    spec = context.spec
    config = spec.config("plan", PlanConfig)
    features = spec.config("features", FeaturesConfig)
    sizes = {"image_size": features.image_size, "video_size": features.video_size}
    check_plan_config(spec.release, config, **sizes)
    return Resolved(
        params={"plan": to_json(config), "seed": spec.seed, **sizes},
        inputs=context.all_upstream(),
    )


def check_plan_config(release: str, config: PlanConfig, *, image_size: int, video_size: int) -> None:
    """Refuses parameters no plan can be made with.

    Raises:
        SpecError: a number is out of range, or the patches do not tile the picture.
    """
    lanes = config.num_lanes
    problem = None
    if not 1 <= lanes <= MAX_LANES or lanes & (lanes - 1):
        problem = f"num_lanes: expected a power of two up to {MAX_LANES}, got {lanes}"
    elif config.image_patch < 1 or image_size % config.image_patch:
        problem = f"image_patch: expected a divisor of features.image_size {image_size}, got {config.image_patch}"
    elif config.video_patch < 1 or video_size % config.video_patch:
        problem = f"video_patch: expected a divisor of features.video_size {video_size}, got {config.video_patch}"
    elif config.num_steps is not None and config.num_steps < 1:
        problem = f"num_steps: expected at least 1 or null, got {config.num_steps}"
    elif config.pack_tokens > MAX_PACK_TOKENS:
        problem = f"pack_tokens: expected at most {MAX_PACK_TOKENS}, got {config.pack_tokens}"
    else:
        problem = next(filter(None, map(_phase_problem, config.phases)), None)
        for name in ("pack_tokens", "packs_per_lane", "num_epochs", "window", "block", "audio_stack"):
            if getattr(config, name) < 1:
                problem = f"{name}: expected at least 1, got {getattr(config, name)}"
    if problem:
        raise SpecError(f"release {release}: configuration section plan is unusable: {problem}.")


def _phase_problem(phase: PhaseConfig) -> str | None:
    if phase.num_epochs < 1:
        return f"phases.num_epochs: expected at least 1, got {phase.num_epochs}"
    if not 0.0 < phase.share <= 1.0:
        return f"phases.share: expected above 0 and up to 1, got {phase.share}"
    if not phase.temperature >= 1.0:
        return f"phases.temperature: expected at least 1, got {phase.temperature}"
    if phase.group_by is None and (phase.weights or phase.temperature != 1.0):
        return f"phases.group_by: expected one of {', '.join(GROUPS)} where groups are weighted, got none"
    negative = [name for name, weight in phase.weights.items() if not weight >= 0.0]
    return (
        f"phases.weights: expected 0 or more, got {phase.weights[negative[0]]} of {negative[0]}" if negative else None
    )
