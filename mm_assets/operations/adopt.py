"""Adoption: new code that is believed to make the same bytes is proven to, on a sample of partitions.

Partitions are picked by the hash of their name, the largest of every configuration, policy and environment included:
code can make the same bytes of one configuration and others of the next. Each is computed again under the new code,
next to what it is, and nothing is committed. If every byte is equal, a look-up under the new code finds what the old
code led to; the first difference is named instead, with the samples of its partition that changed. Codecs are compared
like code: what runs inside the Dagster run has no other environment.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mm_assets.errors import MmError, UsageError
from mm_assets.identity.canonical import Json, digest_json
from mm_assets.materialize import EnvironmentOf, Workspace
from mm_assets.operations.differences import Difference, first_difference
from mm_assets.pipeline import Asset, asset_named
from mm_assets.scratch import scratch_folder
from mm_assets.store.action import Action, Adoption, Environments, Maker, adopted_makers, record_adoption
from mm_assets.store.manifest import Manifest, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.refs import Ref, list_refs


@dataclass(frozen=True, kw_only=True, slots=True)
class AdoptReport:
    """What an adoption compared; ``difference`` is None where every byte was equal and the adoption is recorded.

    ``environments`` holds what differs of them: name, old and new value.
    """

    asset: str
    old_code: str
    new_code: str
    environments: tuple[tuple[str, Json, Json], ...]
    partitions: tuple[str, ...]
    difference: Difference | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Candidate:
    """A partition that new code may be compared on: it differs from what it would be made into by its maker alone."""

    ref: Ref
    manifest: Manifest
    action: Action

    @property
    def maker(self) -> Maker:
        """What it was made by."""
        return Maker(code=self.manifest.code, environment=self.manifest.environment)

    @property
    def environments(self) -> Environments | None:
        """The old and the new one, where they differ."""
        old, new = dict(self.manifest.environment), dict(self.action.environment)
        return None if old == new else Environments(old=old, new=new)


def adopt(
    workspace: Workspace,
    name: str,
    *,
    num_samples: int,
    environment_of: EnvironmentOf,
    by: str,
    on_partition: Callable[[str], None] = lambda path: None,
) -> AdoptReport:
    """Compares the present code of an asset with the code its partitions were made by.

    Args:
        workspace: The store.
        name: The asset.
        num_samples: Partitions to compute again; all if there are fewer, and more where there are more configurations,
            policies and environments.
        environment_of: Environment of launched assets.
        by: Who adopts.
        on_partition: Called with each partition before it is computed.

    Raises:
        UsageError: the asset is unknown or not remembered, or no partition was made by other code from what its
            inputs are now.
    """
    asset = asset_named(name)
    if not asset.is_remembered or num_samples < 1:
        raise UsageError(f"asset {name}: cannot be adopted: expected a computed asset and at least one sample.")
    with workspace.unchanged():
        candidates, problems = _candidates(workspace, asset, environment_of)
    if not candidates:
        skipped = f" {len(problems)} partitions were left out, the first because: {problems[0]}" if problems else ""
        raise UsageError(
            f"asset {name}: has nothing to compare: expected a partition made by other code or codecs from its present "
            "inputs. "
            f"Run a release first, or adopt the assets above it first and check them with `mm run`.{skipped}"
        )
    old, covered = _widest(workspace.store, candidates)
    compared, difference = _compare_all(workspace, _pick(workspace, covered, num_samples), on_partition)
    report = AdoptReport(
        asset=name,
        old_code=old.manifest.code,
        new_code=old.action.code,
        environments=_changes(old.environments),
        partitions=tuple(compared),
        difference=difference,
    )
    if difference is None:
        _record(workspace.store, report, old.environments, by=by)
    return report


def _compare_all(
    workspace: Workspace, picked: list[_Candidate], on_partition: Callable[[str], None]
) -> tuple[list[str], Difference | None]:
    """The partitions that were compared, up to the first difference, and that."""
    compared: list[str] = []
    for candidate in picked:
        path = candidate.ref.partition.path
        on_partition(path)
        compared.append(path)
        with scratch_folder("adopt") as folder:
            difference = _compare(workspace, candidate, folder)
        if difference is not None:
            return compared, difference
    return compared, None


def _record(store: Store, report: AdoptReport, environments: Environments | None, *, by: str) -> None:
    record_adoption(
        store,
        Adoption(
            schema="mm.adoption/1",
            asset=report.asset,
            old_code=report.old_code,
            new_code=report.new_code,
            partitions=list(report.partitions),
            by=by,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            environments=environments,
        ),
    )


def _changes(environments: Environments | None) -> tuple[tuple[str, Json, Json], ...]:
    if environments is None:
        return ()
    old, new = environments.old, environments.new
    return tuple(
        (name, old.get(name), new.get(name)) for name in sorted({*old, *new}) if old.get(name) != new.get(name)
    )


def _candidates(
    workspace: Workspace, asset: Asset, environment_of: EnvironmentOf
) -> tuple[list[_Candidate], list[MmError]]:
    """The partitions that can be compared, one per action, and why others cannot."""
    found: dict[str, _Candidate] = {}
    problems: list[MmError] = []
    for ref in list_refs(workspace.store, asset.name):
        try:
            environment = environment_of(asset, ref.release) if asset.is_launched else {}
            if environment is None or ref.fingerprint in found:
                continue
            action = workspace.resolve(asset.name, ref.partition, environment)
        except MmError as error:
            # Its inputs are not what they were, so there is nothing to compare: other partitions say the same.
            problems.append(error)
            continue
        manifest = read_manifest(workspace.store, ref.manifest)
        candidate = _Candidate(ref=ref, manifest=manifest, action=action)
        # A launched asset's environment is a machine: that another one makes the same bytes is proven for no third.
        is_comparable = candidate.environments is None or not asset.is_launched
        if is_comparable and candidate.maker != action.maker:
            if action.fingerprint_under(candidate.maker) == ref.fingerprint:
                found[ref.fingerprint] = candidate
    return list(found.values()), problems


def _widest(store: Store, candidates: list[_Candidate]) -> tuple[_Candidate, list[_Candidate]]:
    """A candidate whose maker's adoption serves most of them, and these: its own, and those it was adopted for."""
    by_maker: dict[str, list[_Candidate]] = {}
    for candidate in candidates:
        key = [candidate.manifest.code, candidate.environments and candidate.environments.model_dump()]
        by_maker.setdefault(digest_json(key), []).append(candidate)
    covered = {
        key: [candidate for candidate in candidates if _covers(store, first, candidate)]
        for key, (first, *_) in by_maker.items()
    }
    widest = max(covered, key=lambda key: (len(covered[key]), by_maker[key][0].manifest.code, key))
    return by_maker[widest][0], covered[widest]


def _covers(store: Store, first: _Candidate, candidate: _Candidate) -> bool:
    """Whether the adoption of the maker of ``first`` makes ``candidate`` current."""
    old = first.maker
    if first.environments is None:
        old = Maker(code=old.code, environment=candidate.action.environment)
    return candidate.maker == old or candidate.maker in adopted_makers(store, candidate.action.asset, old)


def _pick(workspace: Workspace, candidates: list[_Candidate], num_samples: int) -> list[_Candidate]:
    """The largest partition of every configuration, policy and environment, and others by the hash of their names."""
    largest: dict[str, _Candidate] = {}
    rest: list[_Candidate] = []
    for candidate in sorted(candidates, key=lambda entry: (-_size_bytes(entry), entry.ref.partition.path)):
        if largest.setdefault(_setting(workspace, candidate), candidate) is not candidate:
            rest.append(candidate)
    rest.sort(key=lambda entry: hashlib.sha256(entry.ref.partition.path.encode()).digest())
    return [*largest.values(), *rest][: max(num_samples, len(largest))]


def _setting(workspace: Workspace, candidate: _Candidate) -> str:
    spec = workspace.spec(candidate.ref.release)
    sections = {name: value for name, value in spec.configuration.items() if name not in ("name", "placement")}
    return digest_json([sections, spec.policy, dict(candidate.action.environment)])


def _size_bytes(candidate: _Candidate) -> int:
    return sum(output.size_bytes for output in candidate.manifest.outputs)


def _compare(workspace: Workspace, candidate: _Candidate, folder: Path) -> Difference | None:
    """Computes the partition again and compares every output, and the facts that are remembered with them."""
    workdir = folder / "new"
    workdir.mkdir()
    result = workspace.compute(candidate.action, candidate.ref.partition, workdir)
    return first_difference(workspace.store, candidate.manifest, result, folder / "old")
