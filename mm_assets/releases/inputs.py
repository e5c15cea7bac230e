"""How a stage says what a partition is made from: the context it is asked in, and its answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mm_assets.checks.rules import Rules
from mm_assets.identity.canonical import Json
from mm_assets.releases.spec import ReleaseSpec
from mm_assets.store.manifest import Input, Manifest, Partition
from mm_assets.store.objects import Store
from mm_assets.store.refs import Ref

#: An asset and a partition of it -> its ref, which passed its check under the rules in force and is not stale.
Take = Callable[[str, Partition], Ref]


@dataclass(frozen=True, kw_only=True, slots=True)
class InputContext:
    """What a partition's inputs are resolved from.

    Attributes:
        store: Where everything is.
        spec: Of the partition's release.
        partition: Which one.
        environment: Identity of where it is computed; empty for stages that run inside the Dagster run.
        rules: In force for the release.
        take: Gives the ref of an upstream partition that may be used, and raises where it may not.
        require_sound: Raises ``CheckError`` unless a manifest, given with its digest, passed its check under the rules
            in force for its own release.
        peek: The ref that a partition of this release has now, whatever its state; None where it has none.
        reads: Outputs that are read, by upstream asset, as the table of assets says.
    """

    store: Store
    spec: ReleaseSpec
    partition: Partition
    environment: Mapping[str, Json]
    rules: Rules
    take: Take
    require_sound: Callable[[Manifest, str], None]
    peek: Callable[[str], Ref | None]
    reads: Mapping[str, tuple[str, ...]]

    def upstream(self, asset: str, partition: Partition | None = None) -> Input:
        """The upstream partition (by default of the same name) as an input.

        Raises:
            ObjectMissingError: it is not materialized. CheckError: it did not pass its check, or it is stale.
        """
        return self.take(asset, partition or self.partition).as_input(*self.reads[asset])

    def all_upstream(self) -> tuple[Input, ...]:
        """Every upstream asset's partition of the same name, in the order of the table."""
        return tuple(self.upstream(asset) for asset in self.reads)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """What decides a partition's bytes, besides its code."""

    params: Mapping[str, Json]
    inputs: tuple[Input, ...]
    environment: Mapping[str, Json] = field(default_factory=dict[str, Json])
