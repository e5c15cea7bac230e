"""The recipe of ``model``: a dataset release, the plan made from it, and the training configuration. Torch-free."""

from collections.abc import Mapping

from mm_assets.checks.validations import require_passed
from mm_assets.errors import GateError, SpecError
from mm_assets.identity.canonical import Json, to_json
from mm_assets.identity.code import code_digest
from mm_assets.releases.spec import ReleaseSpec
from mm_assets.store.manifest import Input, Partition, Recipe, read_manifest
from mm_assets.store.objects import Store
from mm_assets.training.config import TrainingConfig

EXPERIMENT_CLASSES = ("exploratory", "benchmark", "release_candidate", "production_retrain")


def resolve_model(store: Store, spec: ReleaseSpec, partition: Partition, environment: Mapping[str, Json]) -> Recipe:
    """What the partition's model would be trained from now.

    Raises:
        GateError: an input did not pass its checks, or the plan was made from another dataset release.
        SpecError: the configuration is unusable.
    """
    config = spec.config("training", TrainingConfig)
    check_training_config(spec.release, config)
    release = require_passed(store, "dataset_release", partition)
    plan = require_passed(store, "batch_plan", partition)
    plan_manifest = read_manifest(store, plan.manifest)
    planned = plan_manifest.input("dataset_release").digest
    if planned != release.manifest:
        raise GateError(
            f"batch_plan {partition.path}: was made from another dataset release: expected {release.manifest}, "
            f"got {planned}. Materialize the batch plan again."
        )
    where = {"release": partition.release}
    return Recipe(
        asset="model",
        partition=partition,
        code=code_digest("mm_assets.training.train", "mm_assets.training.worker"),
        params={"training": to_json(config), "plan": plan_manifest.params["plan"], "seed": spec.seed},
        environment=environment,
        inputs=(
            Input(asset="dataset_release", partition=where, digest=release.manifest),
            Input(asset="batch_plan", partition=where, digest=plan.manifest),
        ),
    )


def check_training_config(release: str, config: TrainingConfig) -> None:
    """Refuses a configuration no model can be trained with.

    Raises:
        SpecError: a value is out of range.
    """
    model = config.model
    expected = {
        "precision: expected fp32": config.precision == "fp32",
        "determinism: expected strict": config.determinism == "strict",
        "threads_per_rank: expected at least 1": config.threads_per_rank >= 1,
        "checkpoint_every: expected at least 1": config.checkpoint_every >= 1,
        "model.heads: expected a divisor of model.width": model.heads >= 1 and model.width % model.heads == 0,
        "model.tower_layers: expected at least 1": model.tower_layers >= 1,
        "model.fused_layers: expected at least 1": model.fused_layers >= 1,
        "model.dropout: expected from 0 to below 1": 0.0 <= model.dropout < 1.0,
        "optimizer.peak_lr: expected above 0": config.optimizer.peak_lr > 0.0,
        f"experiment_class: expected one of {', '.join(EXPERIMENT_CLASSES)}": config.experiment_class
        in EXPERIMENT_CLASSES,
    }
    broken = [rule for rule, holds in expected.items() if not holds]
    if broken:
        raise SpecError(f"release {release}: recipe section training is unusable: {'; '.join(broken)}.")
