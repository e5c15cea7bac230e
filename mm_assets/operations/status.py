"""How far a release is: per asset, how many partitions exist and whether their checks passed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mm_assets.checks.validations import ValidationRecord
from mm_assets.identity.canonical import Json
from mm_assets.materialize import Workspace, partitions_of
from mm_assets.pipeline import ASSETS, Asset
from mm_assets.store.manifest import Partition
from mm_assets.store.refs import read_ref, ref_key

State = Literal["missing", "partial", "unchecked", "failed", "passed", "referenced"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionProblem:
    """A partition whose check failed, and what it found."""

    partition: Partition
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AssetStatus:
    """``done`` of ``total`` partitions are materialized.

    ``state`` is ``failed`` when a check failed, ``passed`` when all partitions exist and passed, ``unchecked`` when
    all exist and a check is outstanding, ``referenced`` when the release has none of its own because its data are
    another release's, ``partial`` or ``missing`` otherwise.
    """

    state: State
    done: int
    total: int
    failures: tuple[PartitionProblem, ...] = ()


def release_status(workspace: Workspace, release: str) -> dict[str, AssetStatus]:
    """The status of every asset of an open release, in pipeline order."""
    return {asset.name: _asset_status(workspace, release, asset) for asset in ASSETS.values()}


def status_json(status: Mapping[str, AssetStatus]) -> dict[str, Json]:
    """``{asset: {state, done, total}}``."""
    return {name: {"state": entry.state, "done": entry.done, "total": entry.total} for name, entry in status.items()}


def _asset_status(workspace: Workspace, release: str, asset: Asset) -> AssetStatus:
    partitions = partitions_of(workspace.spec(release), asset)
    # One listing says which refs exist; only those are read.
    listed = {info.key for info in workspace.store.list_keys(f"refs/{asset.name}/{release}")}
    done = [partition for partition in partitions if ref_key(asset.name, partition) in listed]
    outcomes = {partition: _outcome(workspace, asset.name, partition) for partition in done}
    failures = tuple(
        PartitionProblem(partition=partition, sentence=record.failures)
        for partition, record in outcomes.items()
        if record is not None and not record.passed
    )
    passed = [None if record is None else record.passed for record in outcomes.values()]
    return AssetStatus(state=_state(passed, len(partitions)), done=len(done), total=len(partitions), failures=failures)


def _outcome(workspace: Workspace, name: str, partition: Partition) -> ValidationRecord | None:
    """The outcome of the partition's check under the rules in force; None if none was made of what it is now."""
    ref = read_ref(workspace.store, name, partition).ref
    return None if ref is None else workspace.validation(ref)


def _state(outcomes: list[bool | None], total: int) -> State:
    if total == 0:
        return "referenced"
    if False in outcomes:
        return "failed"
    if len(outcomes) < total:
        return "partial" if outcomes else "missing"
    return "unchecked" if None in outcomes else "passed"
