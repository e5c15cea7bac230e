"""The shards of a frozen release: which objects later stages read of each, and the Merkle root over them.

A shard is its number in ``shards.json``: the parent's shards come first, in the parent's order, then the release's
own. No name of a release or a shard is in here, so the same data have the same ``shards.json`` whatever they are
called; ``places`` finds the names, through the manifests. The root can be recomputed from ``shards.json`` alone.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mm_assets.errors import ObjectCorruptError
from mm_assets.identity.canonical import canonical_json
from mm_assets.store.manifest import Input, Manifest, read_manifest
from mm_assets.store.objects import Store

SCHEMA = "mm.shards/2"
SHARD_ASSETS = ("snapshot", "features", "embeddings")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One shard: digests of the files that are read of it.

    Attributes:
        generation: How many releases its release descends from; 0 for one without a parent.
        samples: ``samples.parquet`` of its snapshot.
        signals: ``signals.parquet`` of its features.
        embedding_signals: ``signals.parquet`` of its embeddings.
        tensors: ``tensors.arrow`` of its features.
    """

    generation: int
    samples: str
    signals: str
    embedding_signals: str
    tensors: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a shard comes from: the partition's names, and its manifests by asset."""

    release: str
    shard: str
    manifests: Mapping[str, str]

    @property
    def path(self) -> str:
        """``release/shard``."""
        return f"{self.release}/{self.shard}"


def own_shards(inputs: Iterable[Input], *, generation: int) -> list[Shard]:
    """The shards that the inputs name, in their order."""
    digests: dict[tuple[str, str], dict[str, str]] = {}
    for entry in inputs:
        if entry.asset in SHARD_ASSETS:
            files = digests.setdefault((entry.partition["release"], entry.partition["shard"]), {})
            files.update({f"{entry.asset}/{item.name}": item.digest for item in entry.outputs})
    return [
        Shard(
            generation=generation,
            samples=files["snapshot/samples.parquet"],
            signals=files["features/signals.parquet"],
            embedding_signals=files["embeddings/signals.parquet"],
            tensors=files["features/tensors.arrow"],
        )
        for files in digests.values()
    ]


def merkle_root(shards: Sequence[Shard]) -> str:
    """Root of a binary hash tree over the shards in their order.

    Leaves and inner nodes are hashed with different prefixes, and an odd node moves up unchanged, so that no two
    different lists have one root. Source: RFC 6962, section 2.1.
    """
    level = [hashlib.sha256(b"\x00" + canonical_json(asdict(shard))).digest() for shard in shards]
    if not level:
        level = [hashlib.sha256(b"").digest()]
    while len(level) > 1:
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [hashlib.sha256(b"\x01" + pair[0] + pair[1]).digest() if len(pair) == 2 else pair[0] for pair in pairs]
    return "sha256:" + level[0].hex()


def write_shards(shards: Sequence[Shard], path: Path) -> Path:
    """Writes ``shards.json``: the Merkle root and the shards in their order."""
    document = {"schema": SCHEMA, "merkle_root": merkle_root(shards), "shards": [asdict(shard) for shard in shards]}
    path.write_bytes(canonical_json(document))
    return path


def parse_shards(data: bytes, where: str) -> tuple[str, list[Shard]]:
    """The Merkle root and the shards of a ``shards.json``; one of the first version is translated.

    Raises:
        ObjectCorruptError: it does not have the expected fields.
    """
    try:
        document = json.loads(data)
        entries: list[dict[str, Any]] = document["shards"]
        if "schema" not in document:
            entries = _translated(entries)
        return document["merkle_root"], [Shard(**entry) for entry in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise ObjectCorruptError(f"{where}: shards.json is unusable: {error}. Freeze the release again.") from error


def read_shards(store: Store, manifest: Manifest) -> tuple[str, list[Shard]]:
    """The Merkle root and shards that a dataset release recorded.

    Raises:
        ObjectCorruptError: ``shards.json`` does not have the expected fields.
    """
    digest = manifest.output("shards.json").digest
    return parse_shards(store.get_bytes(digest), f"dataset_release {manifest.partition.path} ({digest})")


def places(store: Store, manifest: Manifest) -> list[Place]:
    """Where every shard of a dataset release comes from, in the order of ``shards.json``.

    Raises:
        ObjectMissingError: the manifest of a parent is gone.
    """
    if manifest.schema_ == "mm.manifest/1":
        data = store.get_bytes(manifest.output("shards.json").digest)
        return [
            Place(
                release=entry["release"],
                shard=entry["shard"],
                manifests={asset: entry[asset] for asset in SHARD_ASSETS},
            )
            for entry in json.loads(data)["shards"]
        ]
    found: list[Place] = []
    for entry in manifest.inputs_of("dataset_release", "parent"):
        found += places(store, read_manifest(store, entry.manifest))
    own: dict[tuple[str, str], dict[str, str]] = {}
    for entry in manifest.inputs:
        if entry.asset in SHARD_ASSETS:
            key = (entry.partition["release"], entry.partition["shard"])
            own.setdefault(key, {})[entry.asset] = entry.manifest
    return found + [
        Place(release=release, shard=shard, manifests=manifests) for (release, shard), manifests in own.items()
    ]


def _translated(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Entries of the first version, which named releases: their order of seniority was the order of those names."""
    releases = sorted({entry["release"] for entry in entries})
    names = [field.name for field in fields(Shard) if field.name != "generation"]
    return [
        {"generation": releases.index(entry["release"]), **{name: entry[name] for name in names}} for entry in entries
    ]
