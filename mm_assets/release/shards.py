"""The shards of a release: which manifests each is made of, and the Merkle root over them.

A release lists its own shards and its parent's by reference, so nothing of a parent is ever copied. The root changes
if any manifest of any shard does, and it can be recomputed from ``shards.json`` alone.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mm_assets.errors import ObjectCorruptError, StageError
from mm_assets.identity.canonical import canonical_json
from mm_assets.store.manifest import Manifest, read_manifest
from mm_assets.store.objects import Store

SHARD_ASSETS = ("snapshot", "features", "embeddings")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One shard: the digests of its three manifests, and of the files that later stages read from them."""

    release: str
    shard: str
    snapshot: str
    features: str
    embeddings: str
    tensors: str
    samples: str
    signals: str
    embedding_signals: str
    num_rows: int


def read_shard(store: Store, release: str, shard: str, manifests: Mapping[str, str]) -> Shard:
    """A shard from the digests of its manifests, by asset.

    Raises:
        StageError: its tables do not have one row per sample.
    """
    snapshot, features, embeddings = (read_manifest(store, manifests[asset]) for asset in SHARD_ASSETS)
    tensors, signals = features.output("tensors.arrow"), features.output("signals.parquet")
    if tensors.num_rows != signals.num_rows:
        raise StageError(
            f"features {release}/{shard}: its tables differ in length: expected {tensors.num_rows} rows in "
            f"signals.parquet, got {signals.num_rows}. Materialize the shard again."
        )
    return Shard(
        release=release,
        shard=shard,
        **{asset: manifests[asset] for asset in SHARD_ASSETS},
        tensors=tensors.digest,
        samples=snapshot.output("samples.parquet").digest,
        signals=signals.digest,
        embedding_signals=embeddings.output("signals.parquet").digest,
        num_rows=signals.num_rows or 0,
    )


def merkle_root(shards: Sequence[Shard]) -> str:
    """Root of a binary hash tree over the shards in the order of (release, shard).

    Leaves and inner nodes are hashed with different prefixes, and an odd node moves up unchanged, so that no two
    different lists have one root. Source: RFC 6962, section 2.1.
    """
    level = [_leaf(shard) for shard in sorted(shards, key=lambda shard: (shard.release, shard.shard))]
    if not level:
        level = [hashlib.sha256(b"").digest()]
    while len(level) > 1:
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [hashlib.sha256(b"\x01" + pair[0] + pair[1]).digest() if len(pair) == 2 else pair[0] for pair in pairs]
    return "sha256:" + level[0].hex()


def _leaf(shard: Shard) -> bytes:
    named = {name: getattr(shard, name) for name in ("release", "shard", *SHARD_ASSETS)}
    return hashlib.sha256(b"\x00" + canonical_json(named)).digest()


def write_shards(shards: Sequence[Shard], path: Path) -> Path:
    """Writes ``shards.json``: the Merkle root and the shards in the order of (release, shard)."""
    ordered = sorted(shards, key=lambda shard: (shard.release, shard.shard))
    path.write_bytes(canonical_json({"merkle_root": merkle_root(ordered), "shards": [asdict(s) for s in ordered]}))
    return path


def read_shards(store: Store, manifest: Manifest) -> tuple[str, list[Shard]]:
    """The Merkle root and shards that a dataset release recorded.

    Raises:
        ObjectCorruptError: ``shards.json`` does not have the expected fields.
    """
    output = manifest.output("shards.json")
    document = json.loads(store.get_bytes(output.digest))
    try:
        return document["merkle_root"], [Shard(**entry) for entry in document["shards"]]
    except (KeyError, TypeError) as error:
        raise ObjectCorruptError(
            f"dataset_release {manifest.partition.path}: shards.json ({output.digest}) is unusable: {error}. "
            "Freeze the release again."
        ) from error
