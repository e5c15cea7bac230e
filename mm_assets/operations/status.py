"""How far a release is: per asset, how many partitions exist and whether their checks passed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mm_assets.checks.validations import read_validation
from mm_assets.identity.canonical import Json
from mm_assets.pipeline import ASSETS, Asset
from mm_assets.releases.spec import ReleaseSpec
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import Store
from mm_assets.store.refs import read_ref, ref_key

State = Literal["missing", "partial", "unchecked", "failed", "passed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AssetStatus:
    """``done`` of ``total`` partitions are materialized.

    ``state`` is ``failed`` when a check failed, ``passed`` when all partitions exist and passed, ``unchecked`` when
    all exist and a check is outstanding, ``partial`` or ``missing`` otherwise.
    """

    state: State
    done: int
    total: int


def release_status(store: Store, spec: ReleaseSpec) -> dict[str, AssetStatus]:
    """The status of every asset of a release, in pipeline order."""
    return {asset.name: _asset_status(store, spec, asset) for asset in ASSETS.values()}


def status_json(status: Mapping[str, AssetStatus]) -> dict[str, Json]:
    """``{asset: {state, done, total}}``."""
    return {name: {"state": entry.state, "done": entry.done, "total": entry.total} for name, entry in status.items()}


def _asset_status(store: Store, spec: ReleaseSpec, asset: Asset) -> AssetStatus:
    partitions = [Partition(release=spec.release, shard=shard) for shard in spec.shards()]
    if not asset.is_sharded:
        partitions = [Partition(release=spec.release)]
    # One listing says which refs exist; only those are read.
    listed = {info.key for info in store.list_keys(f"refs/{asset.name}/{spec.release}")}
    done = [partition for partition in partitions if ref_key(asset.name, partition) in listed]
    outcomes = [_outcome(store, asset.name, partition) for partition in done]
    return AssetStatus(state=_state(outcomes, len(partitions)), done=len(done), total=len(partitions))


def _outcome(store: Store, name: str, partition: Partition) -> bool | None:
    """Whether the partition's checks passed; None if none ran on what it is now."""
    ref = read_ref(store, name, partition).ref
    record = read_validation(store, name, partition)
    if ref is None or record is None or record.manifest != ref.manifest:
        return None
    return record.passed


def _state(outcomes: list[bool | None], total: int) -> State:
    if False in outcomes:
        return "failed"
    if len(outcomes) < total:
        return "partial" if outcomes else "missing"
    return "unchecked" if None in outcomes else "passed"
