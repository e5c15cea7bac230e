"""Complete named run configurations, written in Python and pinned whole into a release's spec when it is opened.

A researcher adds a recipe here, named after what it runs on; ``dataclasses.replace`` on a neighbour keeps the
difference visible. Everything in a recipe is identity: change a value and what depends on it is computed anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from mm_assets.batching.config import PlanConfig
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.errors import UsageError
from mm_assets.evaluation.config import CorruptionConfig, EvaluationConfig
from mm_assets.features.bootstrap import KIND, bootstrap_encoder_bytes
from mm_assets.features.config import EncoderConfig, FeaturesConfig
from mm_assets.identity.canonical import to_json
from mm_assets.release.config import FreezeConfig
from mm_assets.release.policies import policy_named
from mm_assets.releases.opening import open_release
from mm_assets.releases.spec import ReleaseSpec
from mm_assets.settings import Settings
from mm_assets.store.objects import Store
from mm_assets.training.config import ModelConfig, TrainingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineConfig:
    """One section per stage; ``seed`` keys the splits, the plan and the training."""

    seed: int
    snapshot: SnapshotConfig
    features: FeaturesConfig
    encoder: EncoderConfig
    release: FreezeConfig
    plan: PlanConfig
    training: TrainingConfig
    evaluation: EvaluationConfig


#: Short texts, small pictures and clips of a few seconds, trained on a handful of cores in minutes.
MULTIMODAL_CPU = PipelineConfig(
    seed=20_261_120,
    snapshot=SnapshotConfig(),
    features=FeaturesConfig(),
    encoder=EncoderConfig(),
    release=FreezeConfig(),
    plan=PlanConfig(),
    training=TrainingConfig(),
    evaluation=EvaluationConfig(),
)

#: Every stage on little data in seconds: shows that a drop, a deployment or a change works, not how good a model gets.
SMOKE = replace(
    MULTIMODAL_CPU,
    plan=PlanConfig(packs_per_lane=1, num_steps=12),
    training=TrainingConfig(
        model=ModelConfig(
            width=32,
            heads=2,
            tower_layers=1,
            fused_layers=1,
            ngram_buckets=256,
            stem_channels=(8, 16),
            projection_dim=16,
        ),
        checkpoint_every=4,
        log_every=4,
    ),
    evaluation=EvaluationConfig(
        corruptions=(
            CorruptionConfig(name="image_blur", severities=(3,)),
            CorruptionConfig(name="drop_audio", severities=(1,)),
        )
    ),
)

RECIPES: dict[str, PipelineConfig] = {"multimodal_cpu": MULTIMODAL_CPU, "smoke": SMOKE}


def recipe_named(name: str) -> PipelineConfig:
    """The recipe called ``name``.

    Raises:
        UsageError: there is none.
    """
    if name not in RECIPES:
        raise UsageError(f"recipe {name}: is unknown: expected one of {', '.join(sorted(RECIPES))}.")
    return RECIPES[name]


def open_default_release(
    store: Store,
    settings: Settings,
    *,
    release: str,
    drops: Sequence[tuple[str, str]],
    parent: str | None = None,
    policy: str = "default",
    recipe: str = "multimodal_cpu",
) -> ReleaseSpec:
    """Opens a release over ``drops`` (pairs of source and drop) with a named policy and recipe, all pinned by digest.

    Opening it again alike returns the same spec.

    Raises:
        UsageError: an unknown policy or recipe. DropError: a drop is missing or unusable.
        CommitConflictError: the release exists with another spec.
    """
    config = recipe_named(recipe)
    sections = {field.name: to_json(getattr(config, field.name)) for field in fields(config) if field.name != "seed"}
    return open_release(
        store,
        release=release,
        drops=list(drops),
        parent=parent,
        policy=policy_named(policy),
        recipe={"name": recipe, **sections},
        encoder={"kind": KIND, "digest": store.put_bytes(bootstrap_encoder_bytes(config.encoder))},
        seed=config.seed,
        num_shards=settings.num_shards,
    )
