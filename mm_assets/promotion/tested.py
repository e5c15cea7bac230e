"""The evaluation sets in force for a new release: named ones, and what the models of the registry were tested on.

A test split is a release's own where the release puts every sample into the split that it has there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import TypeAdapter

from mm_assets.identity.canonical import Json
from mm_assets.promotion.chain import read_registry
from mm_assets.promotion.record import STATES
from mm_assets.release.config import PARENT, FreezeConfig
from mm_assets.release.contamination import KEYS_FILE
from mm_assets.release.inputs import policy_params
from mm_assets.releases.evaluation_sets import list_evaluation_sets
from mm_assets.releases.spec import ReleasePin
from mm_assets.store.manifest import Manifest, read_manifest
from mm_assets.store.objects import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitMakers:
    """What decides the split of every sample; releases that are equal in it have equal splits.

    Attributes:
        drops: Pairs of source and drop.
        parent: Digest of the parent's manifest.
        seed: Of the draws.
        config: Fractions, and which samples are linked.
        policy: Leaves samples out, as ``exclusions`` do: where that empties a split or a class, groups move.
        exclusions: Ids and globs, sorted.
    """

    drops: tuple[tuple[str, str], ...]
    parent: str | None
    seed: int
    config: FreezeConfig
    policy: Mapping[str, Json]
    exclusions: tuple[str, ...]


def split_makers(manifest: Manifest) -> SplitMakers:
    """Those of a frozen release."""
    return SplitMakers(
        drops=tuple((entry.partition["source"], entry.partition["drop"]) for entry in manifest.inputs_of("drop")),
        parent=next((entry.manifest for entry in manifest.inputs_of("dataset_release", PARENT)), None),
        seed=int(str(manifest.params["seed"])),
        config=_split_config(manifest.params["config"]),
        policy=dict(manifest.params["policy"]),
        exclusions=tuple(manifest.params["exclusions"]),
    )


def new_split_makers(
    store: Store,
    *,
    drops: tuple[tuple[str, str], ...],
    parent: ReleasePin | None,
    base: ReleasePin | None,
    seed: int,
    section: Json,
    policy: Mapping[str, str],
    exclusions: Sequence[str],
) -> SplitMakers:
    """Those of a release that is being opened.

    Args:
        store: Where the policy is.
        drops: Its own.
        parent: The release it adds to.
        base: The release whose data an experiment uses: drops and parent are that one's.
        seed: Its seed.
        section: ``release`` of its configuration.
        policy: What its spec pins of a policy.
        exclusions: Its ids and globs.
    """
    data = split_makers(read_manifest(store, base.digest)) if base else None
    return SplitMakers(
        drops=data.drops if data else drops,
        parent=data.parent if data else parent.digest if parent else None,
        seed=seed,
        config=_split_config(section),
        policy=policy_params(store, policy),
        exclusions=tuple(sorted(set(exclusions))),
    )


def sets_in_force(
    store: Store,
    release: str,
    makers: SplitMakers,
    *,
    parent: ReleasePin | None,
    base: ReleasePin | None,
    base_sets: Sequence[ReleasePin],
) -> list[ReleasePin]:
    """The evaluation sets that a new release is held against.

    In force is what was named, and what the models of the registry were tested on now. An experiment is held against
    the sets of the release whose data it uses; against the registry's only where its splits are others, because that
    release was held against them when it was opened.

    Args:
        store: Where they are named.
        release: The new one's name.
        makers: What decides its splits.
        parent: The release it adds to; what a line tested on comes with it.
        base: The release whose data an experiment uses.
        base_sets: The sets of that one.
    """
    named = [ReleasePin(release=entry.release, digest=entry.digest) for entry in list_evaluation_sets(store)]
    has_splits_of_base = base is not None and split_makers(read_manifest(store, base.digest)) == makers
    registered = [] if has_splits_of_base else _registered_sets(store, makers)
    pins = {pin.digest: pin for pin in (*base_sets, *named, *registered) if pin.release != release}
    return [pin for digest, pin in pins.items() if parent is None or digest != parent.digest or pin in named]


def _split_config(section: Json) -> FreezeConfig:
    """The section ``release`` of a configuration, without what moves no sample."""
    return replace(TypeAdapter(FreezeConfig).validate_python(section), drift_limit=0.0)


def _registered_sets(store: Store, makers: SplitMakers) -> list[ReleasePin]:
    """Frozen releases of the models that the registry holds, but those whose test split is the release's own."""
    pins: list[ReleasePin] = []
    for record in filter(None, (read_registry(store, state) for state in STATES)):
        manifest = read_manifest(store, record.dataset_release)
        has_keys = any(output.name == KEYS_FILE for output in manifest.outputs)
        if has_keys and split_makers(manifest) != makers:
            pins.append(ReleasePin(release=manifest.partition.release, digest=record.dataset_release))
    return pins
