"""The pipeline as a table: all that is known about an asset stands in its row, and everything else reads it here.

To add an asset is to add a row and the package it names. ``compute`` and ``preview`` are named by strings because they
may need torch, which the code server lacks, and because code that is only named does not enter this module's digest.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from mm_assets.batching.inputs import resolve_batch_plan
from mm_assets.batching.validate import validate_batch_plan
from mm_assets.checks.exclusions import EXCLUSIONS
from mm_assets.checks.rules import Rules
from mm_assets.checks.validations import Finding
from mm_assets.errors import UsageError
from mm_assets.evaluation.inputs import resolve_evaluation
from mm_assets.evaluation.validate import validate_evaluation
from mm_assets.features.inputs import resolve_embeddings, resolve_features
from mm_assets.features.validate import validate_embeddings, validate_features
from mm_assets.modalities.table import modality_modules
from mm_assets.promotion.history import validate_registration
from mm_assets.promotion.inputs import resolve_promotion, resolve_registration
from mm_assets.promotion.validate import validate_promotion
from mm_assets.release.inputs import resolve_dataset_release
from mm_assets.release.standing import judge_standing
from mm_assets.release.validate import validate_dataset_release
from mm_assets.releases.inputs import InputContext, Resolved
from mm_assets.snapshot.inputs import resolve_snapshot
from mm_assets.snapshot.validate import validate_snapshot
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store
from mm_assets.training.inputs import resolve_model
from mm_assets.training.validate import validate_model

Resolve = Callable[[InputContext], Resolved]
Validate = Callable[[Store, Manifest, Rules], tuple[Finding, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """One asset of the pipeline.

    Attributes:
        name: Of the asset; the key of its refs, its resources and its checks.
        stage: Its group and ``mm run --stage`` value.
        description: What it holds, for the UI.
        kinds: What it is made with or made of; icons in the UI.
        is_sharded: Whether it has a partition per shard of a release, or one per release.
        is_launched: Whether it runs in a worker of its own (a GPU pod on Kubernetes), or inside the Dagster run.
        is_remembered: Whether the same action always leads to the same outputs, so that it need not be taken again.
        reads: Outputs it reads, by upstream asset.
        resolve: Says what a partition would be made from now. Torch-free.
        compute: ``module:function`` that makes its bytes.
        code: Modules whose code makes its bytes, where that is not the module of ``compute`` alone.
        aspects: Aspects of modalities whose code makes its bytes too; they are loaded by name.
        libraries: Distributions whose version can change its bytes, for what runs inside the Dagster run.
        validate: Checks what was made. Torch-free.
        check_aspects: Aspects of modalities that its check loads by name.
        standing: Judges what else its use depends on, which may change while its bytes do not: asked each time that it
            is taken, and kept with no outcome. None where nothing does.
        rules: Rules files that its check depends on.
        preview: ``module:function`` that draws a partition for the UI; empty for none.
    """

    name: str
    stage: str
    description: str
    resolve: Resolve
    compute: str
    validate: Validate
    reads: dict[str, tuple[str, ...]]
    kinds: frozenset[str] = frozenset()
    is_sharded: bool = False
    is_launched: bool = False
    is_remembered: bool = True
    code: tuple[str, ...] = ()
    aspects: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    check_aspects: tuple[str, ...] = ()
    standing: Validate | None = None
    rules: tuple[str, ...] = ()
    preview: str = ""
    upstream: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "upstream", tuple(self.reads))


SNAPSHOT_RULES, FEATURES_RULES, PROMOTION_RULES = "snapshot.yaml", "features.yaml", "promotion.yaml"

_ROWS = (
    Asset(
        name="snapshot", stage="snapshot", is_sharded=True, reads={},
        description="The shard's raw samples, frozen: a deterministic WebDataset tar, a row per sample and a row per "
        "dead letter.",
        kinds=frozenset({"s3", "webdataset"}),
        resolve=resolve_snapshot, compute="mm_assets.snapshot.compute:compute_snapshot",
        aspects=("header",),
        libraries=("av", "pillow", "pyarrow", "soundfile"),
        validate=validate_snapshot, rules=(SNAPSHOT_RULES, EXCLUSIONS), preview="mm_assets.snapshot.preview:preview",
    ),
    Asset(
        name="features", stage="features", is_sharded=True,
        reads={"snapshot": ("samples.parquet", "samples.tar")},
        description="The shard's samples decoded once into Arrow tensors, with quality signals that drop nothing.",
        kinds=frozenset({"arrow", "python"}),
        resolve=resolve_features, compute="mm_assets.features.extract:compute_features",
        aspects=("decode", "tensor", "column", "signals", "tracks"),
        libraries=("av", "fasttext-predict", "numpy", "pillow", "pyarrow", "soundfile", "soxr"),
        validate=validate_features, check_aspects=("column",), rules=(FEATURES_RULES, EXCLUSIONS),
        preview="mm_assets.features.preview:preview",
    ),
    Asset(
        name="embeddings", stage="features", is_sharded=True, is_launched=True,
        reads={"features": ("tensors.arrow",)},
        description="A vector per modality by the release's pinned encoder, and coherence signals.",
        kinds=frozenset({"torch"}),
        resolve=resolve_embeddings, compute="mm_assets.features.embed:compute_embeddings",
        aspects=("column", "descriptor"),
        validate=validate_embeddings,
    ),
    Asset(
        name="dataset_release", stage="release",
        reads={
            "snapshot": ("samples.parquet", "dead_letters.parquet"),
            "features": ("signals.parquet", "tensors.arrow", "dead_letters.parquet"),
            "embeddings": ("signals.parquet",),
        },
        description="The frozen dataset: duplicates, curation, splits, statistics and drift, release record and "
        "dataset card. Refuses to run unless every shard of the release exists and passed its checks.",
        kinds=frozenset({"duckdb", "parquet"}),
        resolve=resolve_dataset_release, compute="mm_assets.release.freeze:compute_dataset_release",
        aspects=("signals", "nearness"),
        libraries=("av", "duckdb", "fasttext-predict", "numpy", "pillow", "pyarrow", "pyyaml", "soundfile", "soxr"),
        validate=validate_dataset_release, check_aspects=("nearness",), standing=judge_standing,
        rules=(SNAPSHOT_RULES, FEATURES_RULES),
        preview="mm_assets.release.preview:preview",
    ),
    Asset(
        name="batch_plan", stage="training", reads={"dataset_release": ("samples.parquet",)},
        description="For every step and lane the packs of samples: a pure function of the dataset release, the plan's "
        "parameters and the seed.",
        kinds=frozenset({"parquet", "python"}),
        resolve=resolve_batch_plan, compute="mm_assets.batching.plan:compute_batch_plan",
        aspects=("tokens",),
        libraries=("numpy", "pyarrow"),
        validate=validate_batch_plan, preview="mm_assets.batching.preview:preview",
    ),
    Asset(
        name="model", stage="training", is_launched=True,
        reads={"dataset_release": ("samples.parquet", "shards.json"), "batch_plan": ("plan.parquet",)},
        description="Weights in safetensors with spec, ledger and metrics: the same bits at any number of processes.",
        kinds=frozenset({"torch", "safetensors"}),
        resolve=resolve_model, compute="mm_assets.training.train:compute_model",
        code=("mm_assets.training.prepare", "mm_assets.training.rank", "mm_assets.training.outputs"),
        aspects=("column", "tokens", "augment", "embedder"),
        validate=validate_model, preview="mm_assets.training.preview:preview",
    ),
    Asset(
        name="evaluation", stage="evaluation", is_launched=True,
        reads={
            "dataset_release": ("samples.parquet", "shards.json"),
            "model": ("weights.safetensors", "config.json", "ledger.parquet"),
        },
        description="Accuracy per slice and corruption, calibration, retrieval, and every single prediction.",
        kinds=frozenset({"torch", "json"}),
        resolve=resolve_evaluation, compute="mm_assets.evaluation.evaluate:compute_evaluation",
        aspects=("column", "tokens", "embedder", "corruptions"),
        validate=validate_evaluation, preview="mm_assets.evaluation.preview:preview",
    ),
    Asset(
        name="promotion", stage="promotion",
        reads={
            "dataset_release": ("record.json", "samples.parquet"),
            "model": ("weights.safetensors", "metrics.parquet", "config.json"),
            "evaluation": ("report.json", "predictions.parquet"),
        },
        description="The decision: every gate with its value and threshold, the comparison with the model in "
        "production, and the model card.",
        kinds=frozenset({"markdown", "json"}),
        resolve=resolve_promotion, compute="mm_assets.promotion.decide:compute_promotion",
        libraries=("numpy", "pyyaml"),
        validate=validate_promotion, rules=(PROMOTION_RULES,), preview="mm_assets.promotion.preview:preview",
    ),
    Asset(
        name="registration", stage="promotion", is_remembered=False,
        reads={"promotion": ("decision.json",)},
        description="The move of the registry: re-hashes everything the decision makes reachable, then makes the model "
        "candidate or production as decided, and says why not otherwise.",
        kinds=frozenset({"s3", "json"}),
        resolve=resolve_registration, compute="mm_assets.promotion.registration:compute_registration",
        validate=validate_registration, rules=(PROMOTION_RULES,),
    ),
)  # fmt: skip

ASSETS: dict[str, Asset] = {asset.name: asset for asset in _ROWS}
#: Rules files that a release is not opened with: they are in force only where someone put them on record.
OPTIONAL_RULES: tuple[str, ...] = (EXCLUSIONS,)
#: Every other rules file that some check depends on: what a release pins.
RULES_FILES: tuple[str, ...] = tuple(
    dict.fromkeys(name for asset in _ROWS for name in asset.rules if name not in OPTIONAL_RULES)
)
STAGES: tuple[str, ...] = tuple(dict.fromkeys(asset.stage for asset in _ROWS))


def asset_named(name: str) -> Asset:
    """The asset called ``name``.

    Raises:
        UsageError: the asset is unknown.
    """
    if name not in ASSETS:
        raise UsageError(f"asset {name}: is unknown: expected one of {', '.join(ASSETS)}.")
    return ASSETS[name]


def assets_of(*stages: str) -> list[Asset]:
    """The assets of some stages, all of them where none is named, in the order of the pipeline.

    Raises:
        UsageError: there is no such stage.
    """
    for stage in stages:
        if stage not in STAGES:
            raise UsageError(f"stage {stage}: is unknown: expected one of {', '.join(STAGES)}.")
    return [asset for asset in ASSETS.values() if not stages or asset.stage in stages]


def check_roots(asset: Asset) -> tuple[str, ...]:
    """The modules whose import closure checks the asset."""
    return (asset.validate.__module__, *modality_modules(*asset.check_aspects))


def code_roots(asset: Asset) -> tuple[str, ...]:
    """The modules whose import closure makes the asset's bytes."""
    return (asset.code or (asset.compute.partition(":")[0],)) + modality_modules(*asset.aspects)
