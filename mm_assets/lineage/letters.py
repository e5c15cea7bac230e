"""The dead letters of a release: its own shards' as they are now, and those of the releases it is built on.

A letter is a row of a shard's ``dead_letters.parquet`` with where it is from: source, drop, release, shard and the code
that rejected it. Tables are read one shard at a time.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from mm_assets.drops.origin import origin_of
from mm_assets.errors import UsageError
from mm_assets.identity.canonical import Json
from mm_assets.lineage.records import Row, bare_key, rows_about
from mm_assets.release.shards import Place, places
from mm_assets.releases.spec import ReleaseSpec, read_spec
from mm_assets.scratch import scratch_folder
from mm_assets.snapshot.blobs import blobs_of
from mm_assets.store.manifest import Manifest, Partition, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.refs import read_ref

#: The stages that reject samples.
ASSETS = ("snapshot", "features")
LETTERS = "dead_letters.parquet"
FIELDS = ("id", "source", "drop", "reason", "modality", "stage", "object", "member", "detail", "digest", "size_bytes",
          "release", "shard", "code")  # fmt: skip
GROUPS = ("reason", "modality", "source", "drop")


@dataclass(frozen=True, kw_only=True, slots=True)
class LetterFilter:
    """Which letters are meant; None means any."""

    reason: str | None = None
    modality: str | None = None
    source: str | None = None

    def takes(self, letter: Mapping[str, Any]) -> bool:
        """Whether a letter is meant."""
        wanted = (("reason", self.reason), ("modality", self.modality), ("source", self.source))
        return all(value is None or letter[name] == value for name, value in wanted)


def read_letters(store: Store, release: str, wanted: LetterFilter) -> Iterator[Row]:
    """The letters of a release, by shard.

    Raises:
        UnknownReleaseError: there is no such release.
    """
    for place in shard_places(store, read_spec(store, release)):
        for asset in ASSETS:
            if asset in place.manifests:
                manifest = read_manifest(store, place.manifests[asset])
                yield from (letter for letter in letters_of(store, manifest, place) if wanted.takes(letter))


def shard_places(store: Store, spec: ReleaseSpec) -> list[Place]:
    """Where every shard of a release is: of the release it is built on as it was pinned, its own as they are now."""
    found: list[Place] = []
    for pin in (spec.parent, spec.data_of):
        if pin is not None:
            found += places(store, read_manifest(store, pin.digest))
    return found + [own_place(store, Partition(release=spec.release, shard=shard)) for shard in spec.shards()]


def own_place(store: Store, partition: Partition) -> Place:
    """A shard as it is now; what is not materialized is not among its manifests."""
    refs = {asset: read_ref(store, asset, partition).ref for asset in ASSETS}
    manifests = {asset: ref.manifest for asset, ref in refs.items() if ref is not None}
    return Place(release=partition.release, shard=str(partition.shard), manifests=manifests)


def letters_of(store: Store, manifest: Manifest, place: Place) -> Iterator[Row]:
    """The letters of one stage of one shard."""
    output = manifest.output(LETTERS)
    if output.num_rows == 0:
        return
    with scratch_folder("letters") as folder:
        with pq.ParquetFile(store.fetch(output.digest, folder)) as file:
            for batch in file.iter_batches(use_threads=False):
                for row in batch.to_pylist():
                    source, drop = origin_of(row)
                    about = {"source": source, "drop": drop, "release": place.release, "shard": place.shard}
                    known = {**row, **about, "code": manifest.code}
                    yield {name: known.get(name) for name in FIELDS}


def group_letters(letters: Iterable[Row]) -> list[dict[str, Json]]:
    """Counts by reason, modality, source and drop, the largest first."""
    counts = Counter(tuple(str(letter[name] or "") for name in GROUPS) for letter in letters)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{**dict(zip(GROUPS, key, strict=True)), "num_letters": count} for key, count in ranked]


def find_letter(store: Store, release: str, name: str) -> list[Row]:
    """The letters about a sample (full id or bare key), a raw object, or bytes by their digest, each with its place.

    Raises:
        UsageError: there is none, or several samples have that key.
    """
    found = [
        letter
        for letter in read_letters(store, release, LetterFilter())
        if name in (letter["id"], letter["digest"], letter["object"], bare_key(str(letter["id"] or "")))
    ]
    if not found:
        raise UsageError(
            f"dead letter {name}: is not one of release {release}: expected an id, a key, a raw object or a digest. "
            f"List them with `mm deadletter list --release {release}`."
        )
    ids = {str(letter["id"]) for letter in found}
    if len(ids) > 1 and name not in {*(letter["object"] for letter in found), *(letter["digest"] for letter in found)}:
        raise UsageError(f"dead letter {name}: is ambiguous: expected one of {', '.join(sorted(ids)[:5])}.")
    return [{**letter, "place": _place(store, letter)} for letter in found]


def _place(store: Store, letter: Row) -> dict[str, Json]:
    """Where a letter's bytes are: in the raw object, and after the snapshot also at an offset of the shard's tar."""
    object_key, member = str(letter["object"]), letter["member"]
    place: dict[str, Json] = {"uri": object_key if "://" in object_key else store.uri(object_key)}
    if member is not None:
        head, colon, line = str(member).rpartition(":")
        place |= {"index": head, "line": int(line)} if colon and line.isdigit() else {"member": str(member)}
    if letter["stage"] == "features" and letter["modality"]:
        partition = Partition(release=letter["release"], shard=letter["shard"])
        ref = read_ref(store, "snapshot", partition).ref
        if ref is not None:
            snapshot = read_manifest(store, ref.manifest)
            place |= _blob(store, snapshot, str(letter["id"]), str(letter["digest"]))
    return place


def _blob(store: Store, snapshot: Manifest, sample_id: str, digest: str) -> dict[str, Json]:
    for row in rows_about(store, snapshot.output("samples.parquet").digest, sample_id):
        if row["id"] == sample_id:
            tar = store.object_uri(snapshot.output("samples.tar").digest)
            for blob in blobs_of(row):
                if blob.digest == digest:
                    return {"shard_tar": tar, "offset": blob.offset, "size_bytes": blob.size_bytes}
    return {}
