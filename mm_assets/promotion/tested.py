"""What the models of the registry were tested on: the evaluation sets that are in force without being named.

A test split is a release's own where the release puts every sample into the split that it has there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import TypeAdapter

from mm_assets.identity.canonical import Json
from mm_assets.promotion.chain import read_registry
from mm_assets.promotion.record import STATES
from mm_assets.release.config import PARENT, FreezeConfig
from mm_assets.release.contamination import KEYS_FILE
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
        config=split_config(manifest.params["config"]),
        policy=dict(manifest.params["policy"]),
        exclusions=tuple(manifest.params["exclusions"]),
    )


def split_config(section: Json) -> FreezeConfig:
    """The section ``release`` of a configuration, without what moves no sample."""
    return replace(TypeAdapter(FreezeConfig).validate_python(section), drift_limit=0.0)


def registered_sets(store: Store, makers: SplitMakers) -> list[ReleasePin]:
    """Frozen releases of the models that the registry holds, but those whose test split is the release's own."""
    pins: list[ReleasePin] = []
    for record in filter(None, (read_registry(store, state) for state in STATES)):
        manifest = read_manifest(store, record.dataset_release)
        has_keys = any(output.name == KEYS_FILE for output in manifest.outputs)
        if has_keys and split_makers(manifest) != makers:
            pins.append(ReleasePin(release=manifest.partition.release, digest=record.dataset_release))
    return pins
