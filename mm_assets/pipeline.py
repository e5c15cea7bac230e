"""The pipeline as a table: for every asset, how its recipe is resolved, what computes it and what checks it.

Dagster (``defs``), the command line and the pods all go through ``run_asset`` and ``check_asset``; nothing else
materializes anything. ``compute`` is named by a string because it may need torch, which the code server lacks.
"""

import importlib
import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mm_assets.batching.inputs import resolve_batch_plan
from mm_assets.batching.validate import validate_batch_plan
from mm_assets.checks.validations import Finding, ValidationRecord, read_validation, record_validation
from mm_assets.errors import UsageError
from mm_assets.evaluation.inputs import resolve_evaluation
from mm_assets.evaluation.validate import validate_evaluation
from mm_assets.features.inputs import resolve_embeddings, resolve_features
from mm_assets.features.validate import validate_embeddings, validate_features
from mm_assets.identity.canonical import Json, digest_file, digest_json
from mm_assets.identity.code import code_digest
from mm_assets.promotion.inputs import resolve_promotion
from mm_assets.promotion.registry import register
from mm_assets.promotion.validate import validate_promotion
from mm_assets.release.inputs import resolve_dataset_release
from mm_assets.release.validate import validate_dataset_release
from mm_assets.releases.spec import ReleaseSpec, read_spec
from mm_assets.settings import Settings
from mm_assets.snapshot.inputs import resolve_snapshot
from mm_assets.snapshot.validate import validate_snapshot
from mm_assets.store.commit import Committed, StageResult, commit_known, materialize
from mm_assets.store.manifest import Manifest, Partition, Recipe, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.refs import require_ref
from mm_assets.training.inputs import resolve_model
from mm_assets.training.validate import validate_model

logger = logging.getLogger(__name__)

Environment = Mapping[str, Json]
Resolve = Callable[[Store, ReleaseSpec, Partition, Environment], Recipe]
Compute = Callable[[Store, Recipe, Path, Settings], StageResult]
Validate = Callable[[Store, Manifest, Settings], tuple[Finding, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """One asset of the pipeline.

    ``stage`` is its package, group and ``mm run --stage`` value; ``is_launched`` assets run in a worker of their own
    (a GPU pod on Kubernetes), the others inside the Dagster run. ``suite`` is the configuration file of its checks.
    """

    name: str
    stage: str
    is_sharded: bool
    is_launched: bool
    resolve: Resolve
    compute: str
    validate: Validate
    upstream: tuple[str, ...]
    suite: str | None = None


ASSETS: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        Asset(
            name="snapshot", stage="snapshot", is_sharded=True, is_launched=False, upstream=(),
            resolve=resolve_snapshot, compute="mm_assets.snapshot.compute:compute_snapshot", validate=validate_snapshot,
            suite="snapshot.yaml",
        ),
        Asset(
            name="features", stage="features", is_sharded=True, is_launched=False, upstream=("snapshot",),
            resolve=resolve_features, compute="mm_assets.features.extract:compute_features", validate=validate_features,
            suite="features.yaml",
        ),
        Asset(
            name="embeddings", stage="features", is_sharded=True, is_launched=True, upstream=("features",),
            resolve=resolve_embeddings, compute="mm_assets.features.embed:compute_embeddings",
            validate=validate_embeddings,
        ),
        Asset(
            name="dataset_release", stage="release", is_sharded=False, is_launched=False,
            upstream=("snapshot", "features", "embeddings"),
            resolve=resolve_dataset_release, compute="mm_assets.release.freeze:compute_dataset_release",
            validate=validate_dataset_release,
        ),
        Asset(
            name="batch_plan", stage="training", is_sharded=False, is_launched=False, upstream=("dataset_release",),
            resolve=resolve_batch_plan, compute="mm_assets.batching.plan:compute_batch_plan",
            validate=validate_batch_plan,
        ),
        Asset(
            name="model", stage="training", is_sharded=False, is_launched=True,
            upstream=("dataset_release", "batch_plan"),
            resolve=resolve_model, compute="mm_assets.training.train:compute_model", validate=validate_model,
        ),
        Asset(
            name="evaluation", stage="evaluation", is_sharded=False, is_launched=True,
            upstream=("dataset_release", "model"),
            resolve=resolve_evaluation, compute="mm_assets.evaluation.evaluate:compute_evaluation",
            validate=validate_evaluation,
        ),
        Asset(
            name="promotion", stage="promotion", is_sharded=False, is_launched=False,
            upstream=("dataset_release", "model", "evaluation"),
            resolve=resolve_promotion, compute="mm_assets.promotion.decide:compute_promotion",
            validate=validate_promotion,
        ),
    )
}  # fmt: skip


def asset_named(name: str) -> Asset:
    """The asset called ``name``.

    Raises:
        UsageError: there is none.
    """
    if name not in ASSETS:
        raise UsageError(f"asset {name}: is unknown: expected one of {', '.join(ASSETS)}.")
    return ASSETS[name]


def resolve_recipe(store: Store, name: str, partition: Partition, environment: Environment) -> Recipe:
    """What the partition would be made from now. Torch-free.

    Raises:
        ObjectMissingError: the release or an input does not exist. GateError: an input did not pass its checks.
    """
    return asset_named(name).resolve(store, read_spec(store, partition.release), partition, environment)


def run_asset(
    store: Store,
    settings: Settings,
    name: str,
    partition: Partition,
    *,
    environment: Environment,
    run_id: str | None = None,
    force: bool = False,
) -> Committed:
    """Materializes one partition in this process, from the cache where its fingerprint is known."""
    recipe = resolve_recipe(store, name, partition, environment)
    with tempfile.TemporaryDirectory(prefix=f"mm-{name}-") as folder:

        def compute() -> StageResult:
            logger.info("%s %s: computing", name, partition.path)
            module, _, function = asset_named(name).compute.partition(":")
            return getattr(importlib.import_module(module), function)(store, recipe, Path(folder), settings)

        committed = materialize(store, recipe, compute, run_id=run_id, force=force)
    return _announced(store, committed)


def find_cached(
    store: Store, name: str, partition: Partition, *, environment: Environment, run_id: str | None = None
) -> Committed | None:
    """Commits the partition from the cache, or None if it has to be computed."""
    committed = commit_known(store, resolve_recipe(store, name, partition, environment), run_id=run_id)
    return None if committed is None else _announced(store, committed)


def _announced(store: Store, committed: Committed) -> Committed:
    """Moves the registry as a committed decision says; also from the cache, because a kill may have come in between."""
    if committed.manifest.asset == "promotion":
        register(store, committed.manifest, committed.manifest_digest)
    return committed


def find_validation(store: Store, settings: Settings, name: str, partition: Partition) -> ValidationRecord | None:
    """The passed validation on record of what the partition currently is, under the rules as they are now.

    Raises:
        ObjectMissingError: the partition was never materialized.
    """
    ref = require_ref(store, name, partition)
    known = read_validation(store, name, partition)
    current = (ref.manifest, _rules(settings, asset_named(name)))
    is_current = known is not None and known.passed and (known.manifest, known.rules) == current
    return known if is_current else None


def check_asset(store: Store, settings: Settings, name: str, partition: Partition) -> ValidationRecord:
    """Validates what the partition currently is and records the outcome; downstream stages require the record.

    What passed is not checked again under the same rules; what failed is, because the reason may be gone.
    """
    known = find_validation(store, settings, name, partition)
    if known is not None:
        return known
    asset = asset_named(name)
    ref = require_ref(store, name, partition)
    findings = asset.validate(store, read_manifest(store, ref.manifest), settings)
    return record_validation(store, ref, rules=_rules(settings, asset), findings=findings)


def _rules(settings: Settings, asset: Asset) -> str:
    suite = digest_file(settings.config_file(asset.suite)) if asset.suite else None
    return digest_json({"code": code_digest(asset.validate.__module__), "suite": suite})
