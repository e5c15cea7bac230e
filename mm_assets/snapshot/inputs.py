"""What a snapshot shard is made from: the release's drops and sources by digest, the ceilings, and its place."""

from collections.abc import Mapping
from dataclasses import asdict

import soundfile

from mm_assets.drops.limits import SnapshotConfig
from mm_assets.errors import UsageError
from mm_assets.identity.canonical import Json, digest_json
from mm_assets.identity.code import code_digest, library_versions
from mm_assets.releases.spec import ReleaseSpec
from mm_assets.store.manifest import Input, Partition, Recipe
from mm_assets.store.objects import Store


def resolve_snapshot(store: Store, spec: ReleaseSpec, partition: Partition, environment: Mapping[str, Json]) -> Recipe:
    """The recipe of one shard. Whole drops are its inputs: which of their objects it reads follows from its place.

    Raises:
        UsageError: the release has no such shard.
    """
    shards = spec.shards()
    if partition.shard not in shards:
        raise UsageError(
            f"snapshot {partition.path}: is no shard of the release: expected {shards[0]} to {shards[-1]}."
        )
    inputs = [
        entry
        for pin in spec.drops
        for entry in (
            Input(asset="drop", partition={"source": pin.source, "drop": pin.drop}, digest=pin.digest),
            Input(asset="source", partition={"source": pin.source}, digest=pin.source_digest),
        )
    ]
    return Recipe(
        asset="snapshot",
        partition=partition,
        code=digest_json(
            {
                "source": code_digest("mm_assets.snapshot.compute"),
                "libraries": library_versions("pyarrow", "soundfile"),
            }
        ),
        params={
            "config": asdict(spec.config("snapshot", SnapshotConfig)),
            "num_shards": spec.num_shards,
            "shard_index": shards.index(partition.shard),
        },
        environment={"libsndfile": soundfile.__libsndfile_version__},
        inputs=tuple(entry for number, entry in enumerate(inputs) if entry not in inputs[:number]),
    )
