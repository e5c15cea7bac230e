"""Complete named run configurations, written in Python and pinned whole into a release's spec when it is opened.

A researcher adds a configuration here, named after what it runs on; ``dataclasses.replace`` on a neighbour keeps the
difference visible. Change a value, and what reads it is computed anew and nothing else; ``placement`` changes no byte.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal, get_type_hints

from pydantic import TypeAdapter

from mm_assets.batching.config import PlanConfig
from mm_assets.checks.exclusions import EXCLUSIONS, parse_exclusions, read_exclusions
from mm_assets.checks.suite import parse_suite
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.errors import ObjectMissingError, SettingsError, SpecError, UsageError
from mm_assets.evaluation.config import CorruptionConfig, EvaluationConfig
from mm_assets.features import production
from mm_assets.features.bootstrap import KIND, bootstrap_encoder_bytes
from mm_assets.features.config import EncoderConfig, FeaturesConfig
from mm_assets.features.inputs import check_redactions
from mm_assets.features.kinds import PRETRAINED
from mm_assets.features.pretrained import read_encoder
from mm_assets.identity.canonical import Json, to_json
from mm_assets.materialize import Workspace
from mm_assets.pipeline import FEATURES_RULES, PROMOTION_RULES, RULES_FILES, SNAPSHOT_RULES
from mm_assets.promotion.chain import read_production
from mm_assets.promotion.config import parse_thresholds
from mm_assets.promotion.tested import new_split_makers, sets_in_force
from mm_assets.release.config import FreezeConfig
from mm_assets.release.curation import check_policy
from mm_assets.release.policies import parse_policy
from mm_assets.releases.encoders import BOOTSTRAP, PRODUCTION, find_encoder
from mm_assets.releases.opening import open_release, require_allowed
from mm_assets.releases.policies import pin_policy
from mm_assets.releases.spec import ReleasePin, ReleaseSpec, read_spec, spec_key
from mm_assets.releases.terms import deliveries_of
from mm_assets.settings import Settings
from mm_assets.store.manifest import Partition, read_manifest
from mm_assets.store.objects import Store
from mm_assets.training.config import ModelConfig, TrainingConfig

DEFAULT_CONFIGURATION = "multimodal_cpu"
DEFAULT_POLICY = "default"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacementConfig:
    """How a run is looked after. Recorded in the spec, part of no fingerprint.

    Attributes:
        log_every: Training steps between two lines of progress.
        microbatch_size: Rows per forward pass of the encoder.
        experiment_class: exploratory, benchmark, release_candidate or production_retrain.
        budget_usd: Ceiling of the run's cost; None has none.
        resources: Per launched asset, what it asks of the cluster where ``resources.yaml`` does not suit it.
    """

    log_every: int = 10
    microbatch_size: int = 64
    experiment_class: Literal["exploratory", "benchmark", "release_candidate", "production_retrain"] = "exploratory"
    budget_usd: float | None = None
    resources: Mapping[str, Mapping[str, Json]] = field(default_factory=dict[str, Mapping[str, Json]])


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineConfig:
    """One section per stage, and ``placement``; ``seed`` keys the splits, the plan and the training."""

    seed: int
    snapshot: SnapshotConfig
    features: FeaturesConfig
    encoder: EncoderConfig
    release: FreezeConfig
    plan: PlanConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    placement: PlacementConfig = field(default_factory=PlacementConfig)


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
    plan=PlanConfig(pack_tokens=512, num_steps=12),
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
    ),
    evaluation=EvaluationConfig(
        corruptions=(
            CorruptionConfig(name="image_blur", severities=(3,)),
            CorruptionConfig(name="drop_audio", severities=(1,)),
        )
    ),
)

#: The same, for encoders of the store whose embeddings have the usual 512 numbers.
MULTIMODAL_CPU_512 = replace(MULTIMODAL_CPU, encoder=EncoderConfig(dim=512))

CONFIGURATIONS: dict[str, PipelineConfig] = {
    "multimodal_cpu": MULTIMODAL_CPU,
    "multimodal_cpu_512": MULTIMODAL_CPU_512,
    "smoke": SMOKE,
}
#: Sections that decide the bytes of a shard: an experiment on another release's data must have the same ones.
SHARD_SECTIONS = ("snapshot", "features", "encoder")
#: Kinds of the encoders that are made when a release is opened, by name.
ENCODER_KINDS = {BOOTSTRAP: KIND, PRODUCTION: production.KIND}
#: Who says whether a rules file has a usable form.
PARSERS: dict[str, Callable[[bytes, str], object]] = {
    SNAPSHOT_RULES: parse_suite,
    FEATURES_RULES: parse_suite,
    PROMOTION_RULES: parse_thresholds,
    EXCLUSIONS: parse_exclusions,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseRequest:
    """What a release is to be opened with; what is None is taken over from the release whose data it uses.

    Attributes:
        release: Its name.
        drops: Pairs of source and drop.
        parent: The release it adds to.
        data_of: The release whose data an experiment uses.
        policy: A curation policy: ``NAME``, or ``NAME@VERSION``.
        configuration: Name of a configuration.
        exclusions: Ids or globs of samples to leave out.
        encoder: ``bootstrap`` (or None): classical descriptors; ``production``: the towers of the model in production;
            else the name of an encoder of the store.
        num_shards: How many shards; chosen from the size of the drops where None.
        use: What it is for, which its sources must allow; where None, what the release it is built on is for.
        like: A release whose encoder and rules in force it takes over, instead of ``encoder`` and this version's rules.
    """

    release: str
    drops: tuple[tuple[str, str], ...] = ()
    parent: str | None = None
    data_of: str | None = None
    policy: str | None = None
    configuration: str | None = None
    exclusions: tuple[str, ...] = ()
    encoder: str | None = None
    num_shards: int | None = None
    use: str | None = None
    like: str | None = None


def configuration_named(name: str) -> PipelineConfig:
    """The configuration called ``name``.

    Raises:
        UsageError: the configuration is unknown.
    """
    if name not in CONFIGURATIONS:
        raise UsageError(f"configuration {name}: is unknown: expected one of {', '.join(sorted(CONFIGURATIONS))}.")
    return CONFIGURATIONS[name]


def open_named_release(workspace: Workspace, request: ReleaseRequest) -> ReleaseSpec:
    """Opens a release with a named policy and configuration, everything pinned by digest. Idempotent.

    The rules it pins are the files of this deployment (``MM_CONFIG_DIR``) or this version, checked for their form.

    Raises:
        UsageError: an unknown policy, configuration, parent or release, or a parent that is not frozen.
        CheckError: the parent, or the release whose data are used, did not pass its check; or a source does not allow
            the release.
        SpecError: the configuration makes other shards than the release whose data are used.
        DropError: a drop is missing or unusable. SettingsError: a rules file is unusable.
        CommitConflictError: the release is open with another spec.
    """
    store, settings = workspace.store, workspace.settings
    if (request.num_shards or 0) > settings.num_shards:
        raise SettingsError(
            f"release {request.release}: asks for more shards than this deployment has keys: expected at most "
            f"{settings.num_shards}, got {request.num_shards}. Set MM_NUM_SHARDS to that and restart."
        )
    base = _frozen(workspace, request.data_of, "--data-of") if request.data_of else None
    parent = _frozen(workspace, request.parent, "--parent") if request.parent else None
    base_spec = workspace.spec(base.release) if base else None
    sections, seed = _sections(request, base_spec)
    policy = (
        base_spec.policy if base_spec and request.policy is None else _policy(store, request.policy or DEFAULT_POLICY)
    )
    inherited = _inherited_exclusions(workspace, base or parent)
    if base_spec and request.encoder is not None:
        raise UsageError("--encoder: makes other shards: expected it without --data-of. Open the release with --drop.")
    opened = read_spec(store, request.release) if store.read_key(spec_key(request.release)) else None
    if opened is not None:
        # What came since then stays out: fields, versions of a policy, exclusions of the release it is built on.
        sections = _as_opened(opened, sections)
        if opened.policy["name"] == policy["name"] and "@" not in (request.policy or ""):
            policy = opened.policy
        inherited = [name for name in inherited if name in opened.exclusions]
    like = base_spec or (workspace.spec(request.like) if request.like else None)
    if like is not None and (base_spec or like.encoder["kind"] != KIND):
        encoder = _encoder_of(like, sections)
    else:
        encoder = _encoder(store, sections, request.encoder or BOOTSTRAP, opened)
    built_on = base or parent
    taken_over = opened.use if opened else workspace.spec(built_on.release).use if built_on else None
    use = request.use or taken_over
    exclusions = [*inherited, *request.exclusions]
    deliveries = deliveries_of(store, [], built_on)
    require_allowed(store, request.release, deliveries, use, is_opening=opened is None)
    if opened is not None:
        sets = opened.evaluation_sets
    else:
        makers = new_split_makers(
            store, drops=request.drops, parent=parent, base=base, seed=seed, section=sections["release"],
            policy=policy, exclusions=exclusions,
        )  # fmt: skip
        base_sets = base_spec.evaluation_sets if base_spec else []
        sets = sets_in_force(store, request.release, makers, parent=parent, base=base, base_sets=base_sets)
    return open_release(
        store,
        release=request.release,
        drops=list(request.drops),
        parent=parent,
        data_of=base,
        policy=policy,
        rules=_rules_of(workspace, request.like) if request.like else pin_rules(store, settings),
        configuration=sections,
        encoder=encoder,
        seed=seed,
        num_shards=request.num_shards or (opened.num_shards or None if opened else None),
        max_shards=settings.num_shards,
        use=use,
        evaluation_sets=sets,
        exclusions=exclusions,
    )


def pin_rules(store: Store, settings: Settings) -> dict[str, str]:
    """Stores the rules files of this deployment, or this version, and returns their digests by name.

    Raises:
        SettingsError: one has no usable form.
    """
    digests: dict[str, str] = {}
    for name in RULES_FILES:
        path = settings.config_file(name)
        data = path.read_bytes()
        PARSERS[name](data, str(path))
        digests[name] = store.put_bytes(data)
    return digests


def _rules_of(workspace: Workspace, release: str) -> dict[str, str]:
    """The rules in force for another release, stored; its exclusions are no rules that a release is opened with."""
    rules = workspace.rules(release)
    return {name: workspace.store.put_bytes(rules.read(name)) for name in RULES_FILES}


def _encoder_of(spec: ReleaseSpec, sections: Mapping[str, Json]) -> dict[str, str]:
    """The encoder that another release pins.

    Raises:
        SpecError: the configuration asks for embeddings of another length.
    """
    dims = [
        TypeAdapter(EncoderConfig).validate_python(given["encoder"]).dim for given in (spec.configuration, sections)
    ]
    if dims[0] != dims[1]:
        raise SpecError(
            f"encoder of release {spec.release}: gives other embeddings than the configuration asks for: expected "
            f"encoder.dim {dims[0]}, got {dims[1]}. Name a configuration that has it."
        )
    return spec.encoder


def _policy(store: Store, name: str) -> dict[str, str]:
    """What a spec pins of a named policy, which this version can carry out.

    Raises:
        UsageError: there is no such policy. SpecError: it is unusable.
    """
    pinned = pin_policy(store, name)
    check_policy(parse_policy(store.get_bytes(pinned["digest"]), pinned["file"]))
    return pinned


def frozen_pin(workspace: Workspace, release: str) -> ReleasePin:
    """A release as it is frozen now.

    Raises:
        UsageError: it is not frozen. CheckError: it did not pass its check.
    """
    return _frozen(workspace, release, "--release")


def _inherited_exclusions(workspace: Workspace, pin: ReleasePin | None) -> list[str]:
    """What the release that another one is built on leaves out: as opened, and on record since."""
    if pin is None:
        return []
    return [*workspace.spec(pin.release).exclusions, *read_exclusions(workspace.rules(pin.release)).samples]


def _frozen(workspace: Workspace, release: str, option: str) -> ReleasePin:
    """The frozen state of a release that another one is built on."""
    try:
        workspace.spec(release)
        digest = workspace.require_sound("dataset_release", Partition(release=release))
    except ObjectMissingError as error:
        raise UsageError(f"{option} {release}: cannot be used: {error}") from error
    return ReleasePin(release=release, digest=digest)


def _sections(request: ReleaseRequest, base: ReleaseSpec | None) -> tuple[dict[str, Json], int]:
    """The configuration as the spec holds it, and its seed."""
    if base is not None and request.configuration is None:
        return dict(base.configuration), base.seed
    name = request.configuration or DEFAULT_CONFIGURATION
    config = configuration_named(name)
    check_redactions(config.features)
    sections: dict[str, Json] = {"name": name}
    sections |= {entry.name: to_json(getattr(config, entry.name)) for entry in fields(config) if entry.name != "seed"}
    if base is not None:
        for section in SHARD_SECTIONS:
            if sections[section] != _completed(base, section, type(getattr(config, section))):
                raise SpecError(
                    f"release {request.release}: configuration {name} makes other shards than {base.release}: section "
                    f"{section}: expected {json.dumps(base.configuration.get(section), sort_keys=True)}, got "
                    f"{json.dumps(sections[section], sort_keys=True)}. Open it with --drop instead of --data-of."
                )
    return sections, config.seed


def _as_opened(opened: ReleaseSpec, sections: Mapping[str, Json]) -> dict[str, Json]:
    """The sections of a release that is open already: as they were, where only later fields' defaults are missing."""
    kinds = {name: kind for name, kind in get_type_hints(PipelineConfig).items() if name not in ("seed", "placement")}
    return {
        name: opened.configuration[name]
        if name in kinds and name in opened.configuration and _completed(opened, name, kinds[name]) == value
        else value
        for name, value in sections.items()
    }


def _completed(spec: ReleaseSpec, section: str, kind: type) -> Json:
    """A section of an open release, with the defaults of fields that came after it was opened."""
    try:
        return to_json(spec.config(section, kind))
    except SpecError:
        return spec.configuration.get(section)


def _encoder(store: Store, sections: Mapping[str, Json], name: str, opened: ReleaseSpec | None) -> dict[str, str]:
    """The encoder of an open release, or of a new one by its name."""
    config = TypeAdapter(EncoderConfig).validate_python(sections["encoder"])
    if opened is not None and opened.encoder["kind"] == ENCODER_KINDS.get(name):
        return opened.encoder
    if name == BOOTSTRAP:
        return {"kind": KIND, "digest": store.put_bytes(bootstrap_encoder_bytes(config))}
    if name == PRODUCTION:
        record = read_production(store)
        if record is None:
            raise UsageError(
                "--encoder production: no model is in production. Open the release with the bootstrap encoder."
            )
        return pin_towers(store, record.model, config)
    entry = find_encoder(store, name)
    features = TypeAdapter(FeaturesConfig).validate_python(sections["features"])
    read_encoder(store, entry.digest).require_fit(name, config, features)
    return {"kind": PRETRAINED, "digest": entry.digest, "name": name}


def pin_towers(store: Store, model: str, config: EncoderConfig) -> dict[str, str]:
    """Stores the encoder that a model's towers are; ``model`` is the digest of its manifest.

    Raises:
        SpecError: its embeddings have another length than the configuration's.
    """
    manifest = read_manifest(store, model)
    parts = (store.get_bytes(manifest.output(name).digest) for name in ("config.json", "weights.safetensors"))
    digest = store.put_bytes(production.towers_encoder_bytes(*parts, config=config))
    return {"kind": production.KIND, "digest": digest, "model": model}
