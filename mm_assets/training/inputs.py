"""What a model is made from: a dataset release, the plan made from it, and the training configuration. Torch-free."""

from mm_assets.batching.config import PlanConfig
from mm_assets.errors import SpecError
from mm_assets.identity.canonical import to_json
from mm_assets.releases.inputs import InputContext, Resolved
from mm_assets.training.config import TrainingConfig

PRECISIONS = ("fp32", "bf16")


def resolve_model(context: InputContext) -> Resolved:
    """What the partition's model would be trained from now.

    Raises:
        CheckError: an input did not pass its check, or the plan was made from another dataset release.
        SpecError: the configuration is unusable.
    """
    spec = context.spec
    config = spec.config("training", TrainingConfig)
    check_training_config(spec.release, config)
    return Resolved(
        params={"training": to_json(config), "plan": to_json(spec.config("plan", PlanConfig)), "seed": spec.seed},
        environment=context.environment,
        inputs=context.all_upstream(),
    )


def check_training_config(release: str, config: TrainingConfig) -> None:
    """Refuses a configuration no model can be trained with.

    Raises:
        SpecError: a value is out of range.
    """
    problem = training_problem(config)
    if problem:
        raise SpecError(f"release {release}: configuration section training is unusable: {problem}.")


def training_problem(config: TrainingConfig) -> str | None:
    """The rules that a configuration breaks, if it does."""
    model = config.model
    expected = {
        f"precision: expected one of {', '.join(PRECISIONS)}": config.precision in PRECISIONS,
        "determinism: expected strict": config.determinism == "strict",
        "threads_per_rank: expected at least 1": config.threads_per_rank >= 1,
        "checkpoint_every: expected at least 1": config.checkpoint_every >= 1,
        "model.heads: expected a divisor of model.width": model.heads >= 1 and model.width % model.heads == 0,
        "model.tower_layers: expected at least 1": model.tower_layers >= 1,
        "model.fused_layers: expected at least 1": model.fused_layers >= 1,
        "model.dropout: expected from 0 to below 1": 0.0 <= model.dropout < 1.0,
        "optimizer.peak_lr: expected above 0": config.optimizer.peak_lr > 0.0,
    }
    return "; ".join(rule for rule, holds in expected.items() if not holds) or None
