"""The gate in code: a release is frozen only from shards that exist, passed their checks and belong together."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mm_assets.checks.validations import read_validation, require_passed
from mm_assets.errors import GateError, ObjectMissingError
from mm_assets.identity.canonical import Json, digest_json, to_json
from mm_assets.identity.code import code_digest, library_versions
from mm_assets.release.config import FreezeConfig
from mm_assets.release.shards import SHARD_ASSETS
from mm_assets.releases.spec import ReleaseSpec
from mm_assets.store.manifest import Input, Partition, Recipe, read_manifest
from mm_assets.store.objects import Store

#: Small reads per shard; the server's latency, not this machine, sets their pace.
READERS = 8
#: Which upstream manifest each asset was computed from.
MADE_FROM = {"features": "snapshot", "embeddings": "features"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _ShardState:
    """The manifests of a shard that are usable, by asset, and what is wrong with the others."""

    shard: str
    manifests: dict[str, str]
    problems: list[str]


def resolve_dataset_release(
    store: Store, spec: ReleaseSpec, partition: Partition, environment: Mapping[str, Json]
) -> Recipe:
    """What the release would be frozen from now.

    Raises:
        GateError: a shard is missing, unchecked, failed or stale (all of them are named), or the parent is unusable.
    """
    del environment  # The freeze runs the same everywhere; its libraries are part of ``code``.
    inputs = [*_shard_inputs(store, spec), *_origin_inputs(spec), *_parent_inputs(store, spec)]
    return Recipe(
        asset="dataset_release",
        partition=partition,
        code=digest_json(
            {
                "source": code_digest("mm_assets.release.freeze"),
                "libraries": library_versions("duckdb", "numpy", "pyarrow"),
            }
        ),
        params={
            "config": to_json(spec.config("release", FreezeConfig)),
            "policy": spec.policy,
            "exclusions": sorted(set(spec.exclusions)),
            "seed": spec.seed,
        },
        environment={},
        inputs=tuple(inputs),
    )


def _shard_inputs(store: Store, spec: ReleaseSpec) -> list[Input]:
    with ThreadPoolExecutor(READERS) as pool:
        states = list(pool.map(lambda shard: _shard_state(store, spec.release, shard), spec.shards()))
    problems = [problem for state in states for problem in state.problems]
    if problems:
        raise GateError(
            f"dataset_release {spec.release}: {len(problems)} of {len(states) * len(SHARD_ASSETS)} shard partitions "
            f"are not ready: {'; '.join(problems)}. Repair their data if a check failed, materialize these partitions "
            "together with their checks, and then freeze the release."
        )
    return [
        Input(asset=asset, partition={"release": spec.release, "shard": state.shard}, digest=state.manifests[asset])
        for state in states
        for asset in SHARD_ASSETS
    ]


def _shard_state(store: Store, release: str, shard: str) -> _ShardState:
    state = _ShardState(shard=shard, manifests={}, problems=[])
    partition = Partition(release=release, shard=shard)
    for asset in SHARD_ASSETS:
        try:
            state.manifests[asset] = require_passed(store, asset, partition).manifest
        except ObjectMissingError:
            state.problems.append(f"{asset} {shard} is missing")
        except GateError:
            state.problems.append(f"{asset} {shard} {_why_refused(store, asset, partition)}")
    for asset, upstream in MADE_FROM.items():
        problem = _stale(store, state, asset, upstream)
        if problem:
            state.problems.append(problem)
    return state


def _why_refused(store: Store, asset: str, partition: Partition) -> str:
    record = read_validation(store, asset, partition)
    if record is None or record.passed:
        return "is not checked as it is now"
    details = [str(finding["detail"]).rstrip(".") for finding in record.findings if not finding["passed"]]
    return f"failed its checks ({', '.join(details)})"


def _stale(store: Store, state: _ShardState, asset: str, upstream: str) -> str | None:
    if asset not in state.manifests or upstream not in state.manifests:
        return None
    made_from = read_manifest(store, state.manifests[asset]).input(upstream).digest
    if made_from == state.manifests[upstream]:
        return None
    return f"{asset} {state.shard} is stale (made from another {upstream} than the present one)"


def _origin_inputs(spec: ReleaseSpec) -> list[Input]:
    drops = [
        Input(asset="drop", partition={"source": pin.source, "drop": pin.drop}, digest=pin.digest) for pin in spec.drops
    ]
    sources = {(pin.source, pin.source_digest) for pin in spec.drops}
    return drops + [
        Input(asset="source", partition={"source": source}, digest=digest) for source, digest in sorted(sources)
    ]


def _parent_inputs(store: Store, spec: ReleaseSpec) -> list[Input]:
    if spec.parent is None:
        return []
    release, digest = spec.parent.release, spec.parent.digest
    manifest = read_manifest(store, digest)
    if (manifest.asset, manifest.partition.release) != ("dataset_release", release):
        raise GateError(
            f"dataset_release {spec.release}: its parent {digest} is not a frozen release: expected dataset_release "
            f"{release}, got {manifest.asset} {manifest.partition.path}. Open the release again with another parent."
        )
    record = read_validation(store, "dataset_release", Partition(release=release))
    if record is not None and record.manifest == digest and not record.passed:
        raise GateError(
            f"dataset_release {spec.release}: its parent {release} failed its checks. Repair the parent, or open the "
            "release again with another one."
        )
    return [Input(asset="dataset_release", partition={"release": release}, digest=digest)]
