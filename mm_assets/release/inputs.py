"""What a release is frozen from: its own shards, each checked and up to date, and its parent by reference."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mm_assets.checks.exclusions import read_exclusions
from mm_assets.drops.record import DROP_FILE, SOURCE_FILE
from mm_assets.errors import CheckError, ObjectMissingError
from mm_assets.identity.canonical import Json, to_json
from mm_assets.release.config import PARENT, FreezeConfig
from mm_assets.release.contamination import EVALUATION_OUTPUTS, EVALUATION_SET, KEYS_FILE
from mm_assets.release.kept import ancestors_of, compares_alike, kept_by, without_kept
from mm_assets.release.near_sets import SIGNATURES_FILE
from mm_assets.release.policies import parse_policy
from mm_assets.release.shards import SHARD_ASSETS
from mm_assets.releases.inputs import InputContext, Resolved
from mm_assets.releases.opening import require_terms
from mm_assets.releases.spec import ReleasePin
from mm_assets.store.manifest import Input, Manifest, NamedDigest, Partition, read_manifest
from mm_assets.store.objects import Store

#: Small reads per shard; the server's latency, not this machine, sets their pace.
READERS = 8
#: What is read of a parent: which samples it has, its shards, its counts and its sources.
PARENT_OUTPUTS = ("samples.parquet", "shards.json", "stats.json", "record.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class _ShardState:
    """The inputs that a shard contributes, and what is wrong with the others."""

    inputs: list[Input]
    problems: list[str]


def resolve_dataset_release(context: InputContext) -> Resolved:
    """What the release would be frozen from now.

    Raises:
        CheckError: a shard is missing, unchecked, failed or stale (all of them are named), the parent is unusable, or a
            source does not allow the release today.
    """
    spec = context.spec
    require_terms(context.store, spec)
    config = spec.config("release", FreezeConfig)
    if spec.data_of is not None:
        frozen = _pinned(context, spec.data_of, "data_of")
        inputs = [entry for entry in _inputs_of(context, frozen) if entry.role != EVALUATION_SET]
        if not compares_alike(frozen, config):
            inputs = list(without_kept(inputs))
    else:
        inputs = [*_shard_inputs(context), *_origin_inputs(context), *_parent_inputs(context)]
    inputs += _evaluation_inputs(context)
    return Resolved(
        params={
            "config": to_json(config),
            "policy": policy_params(context.store, spec.policy),
            "exclusions": sorted({*spec.exclusions, *read_exclusions(context.rules).samples}),
            "seed": spec.seed,
            **({"use": spec.use} if spec.use else {}),
        },
        inputs=tuple(inputs),
    )


def policy_params(store: Store, pinned: Mapping[str, str]) -> dict[str, Json]:
    """The policy that a spec pins, as it decides the release's bytes; specs once held the expression itself.

    Raises:
        SpecError: the pinned file has no usable form.
    """
    if "digest" not in pinned:
        return dict(pinned)
    return parse_policy(store.get_bytes(pinned["digest"]), pinned["file"]).to_params()


def _shard_inputs(context: InputContext) -> list[Input]:
    shards = context.spec.shards()
    with ThreadPoolExecutor(READERS) as pool:
        states = list(pool.map(lambda shard: _shard_state(context, shard), shards))
    problems = [problem for state in states for problem in state.problems]
    if problems:
        raise CheckError(
            f"dataset_release {context.spec.release}: {len(problems)} of {len(states) * len(SHARD_ASSETS)} shard "
            f"partitions are not ready: {'; '.join(problems)}. Repair their data if a check failed, materialize these "
            "partitions together with their checks, and then freeze the release."
        )
    return [entry for state in states for entry in state.inputs]


def _shard_state(context: InputContext, shard: str) -> _ShardState:
    state = _ShardState(inputs=[], problems=[])
    partition = Partition(release=context.spec.release, shard=shard)
    for asset in SHARD_ASSETS:
        try:
            state.inputs.append(context.upstream(asset, partition))
        except ObjectMissingError:
            state.problems.append(f"{asset} {shard} is missing")
        except CheckError as error:
            state.problems.append(f"{asset} {shard} {_clause(error, f'{asset} {partition.path}: ')}")
    return state


def _clause(error: CheckError, subject: str) -> str:
    """The error without its subject and its advice."""
    return str(error).removeprefix(subject).partition(". ")[0].rstrip(".")


def _origin_inputs(context: InputContext) -> Iterator[Input]:
    """The descriptions of drops and sources, which the release record repeats."""
    for pin in context.spec.drops:
        yield _described("drop", {"source": pin.source, "drop": pin.drop}, pin.digest, DROP_FILE)
    for source, digest in sorted({(pin.source, pin.source_digest) for pin in context.spec.drops}):
        yield _described("source", {"source": source}, digest, SOURCE_FILE)


def _described(asset: str, partition: dict[str, str], digest: str, name: str) -> Input:
    return Input(asset=asset, partition=partition, manifest=digest, outputs=[NamedDigest(name=name, digest=digest)])


def _parent_inputs(context: InputContext) -> list[Input]:
    pin = context.spec.parent
    if pin is None:
        return []
    manifest = _pinned(context, pin, PARENT)
    # A parent that was frozen by older code has kept no keys of its test split.
    names = [*PARENT_OUTPUTS, *(output.name for output in manifest.outputs if output.name == KEYS_FILE)]
    kept, ancestors = kept_by(manifest), list(ancestors_of(manifest))
    if kept and compares_alike(manifest, context.spec.config("release", FreezeConfig)):
        names += kept
    else:
        ancestors = []
    return [
        *ancestors,
        Input(
            asset="dataset_release",
            partition={"release": pin.release},
            manifest=pin.digest,
            outputs=[NamedDigest(name=name, digest=manifest.output(name).digest) for name in names],
            role=PARENT,
        ),
    ]


def _evaluation_inputs(context: InputContext) -> Iterator[Input]:
    """The evaluation sets that the release is held against."""
    for pin in context.spec.evaluation_sets:
        manifest = read_manifest(context.store, pin.digest)
        names = [*EVALUATION_OUTPUTS, *([SIGNATURES_FILE] if _has_signatures(manifest) else [])]
        yield Input(
            asset="dataset_release",
            partition={"release": pin.release},
            manifest=pin.digest,
            outputs=[NamedDigest(name=name, digest=manifest.output(name).digest) for name in names],
            role=EVALUATION_SET,
        )


def _has_signatures(manifest: Manifest) -> bool:
    """Whether a set kept the signatures of its test split; if not, it is compared by keys alone.

    Older code kept none, or an empty file where the configuration compared no near duplicates.
    """
    kept = [output for output in manifest.outputs if output.name == SIGNATURES_FILE]
    config: Mapping[str, Json] = manifest.params["config"]
    compared = config.get("group_near_duplicates") or config.get("drop_near_duplicates")
    return bool(kept) and bool(compared or kept[0].num_rows)


def _inputs_of(context: InputContext, frozen: Manifest) -> Iterator[Input]:
    """The very inputs that another release was frozen from."""
    reads: Mapping[str, tuple[str, ...]] = {**context.reads, "dataset_release": PARENT_OUTPUTS}
    named: dict[str, Callable[[Input], list[NamedDigest]]] = {
        "drop": lambda entry: [NamedDigest(name=DROP_FILE, digest=entry.manifest)],
        "source": lambda entry: [NamedDigest(name=SOURCE_FILE, digest=entry.manifest)],
    }
    for entry in frozen.inputs:
        if entry.outputs:
            yield entry
        elif entry.asset in named:
            yield entry.model_copy(update={"outputs": named[entry.asset](entry)})
        else:
            # A manifest of the first version names its inputs' manifests only.
            yield entry.model_copy(update={"outputs": _outputs(context.store, entry, reads[entry.asset])})


def _outputs(store: Store, entry: Input, names: tuple[str, ...]) -> list[NamedDigest]:
    manifest = read_manifest(store, entry.manifest)
    return [NamedDigest(name=name, digest=manifest.output(name).digest) for name in names]


def _pinned(context: InputContext, pin: ReleasePin, role: str) -> Manifest:
    """The pinned manifest of another release, which must still pass under that release's rules.

    Raises:
        CheckError: it is something else, or the other release failed its check since.
    """
    manifest = read_manifest(context.store, pin.digest)
    if (manifest.asset, manifest.partition.release) != ("dataset_release", pin.release):
        raise CheckError(
            f"dataset_release {context.spec.release}: its {role} {pin.digest} is not a frozen release: expected "
            f"dataset_release {pin.release}, got {manifest.asset} {manifest.partition.path}. Open it again."
        )
    context.require_sound(manifest, pin.digest)
    return manifest
