"""What a snapshot shard is made from: the raw objects that fall to it, and the ceilings.

Nothing else enters: another release, or another description of the same delivery, leads to the same shard.
"""

from dataclasses import asdict, dataclass

import soundfile

from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.record import Drop, DropObject, parse_drop
from mm_assets.errors import UsageError
from mm_assets.identity.canonical import digest_json
from mm_assets.modalities.video.container import ffmpeg_versions
from mm_assets.releases.inputs import InputContext, Resolved
from mm_assets.releases.spec import DropPin, shard_key
from mm_assets.snapshot.shard import ShardPlace, deal_tars
from mm_assets.store.manifest import Input, NamedDigest
from mm_assets.store.objects import Store

#: Name of the input that stands for all files an index may refer to; its digest is over their names and digests.
FILES = "files"
#: Name of the input that stands for how the drop says its index is read; none where the index needs no such word.
COLUMNS = "columns"


def resolve_snapshot(context: InputContext) -> Resolved:
    """What one shard is made from. Where the objects lie is in the drop's record, which the input's manifest names.

    Raises:
        UsageError: the release has no such shard.
    """
    spec, partition = context.spec, context.partition
    if not spec.has_shard(partition.shard):
        last = f"{shard_key(0)} to {shard_key(spec.num_shards - 1)}"
        expected = last if spec.num_shards else "none: its data are another release's"
        raise UsageError(f"snapshot {partition.path}: is not a shard of the release: expected {expected}.")
    listings = [_listing(context.store, pin) for pin in spec.drops]
    index = int(str(partition.shard))
    tars: list[list[NamedDigest]] = [[] for _ in spec.drops]
    for number, entry in _dealt(context.store, tuple(spec.drops), spec.num_shards)[index]:
        tars[number].append(NamedDigest(name=entry.name, digest=entry.digest))
    inputs = [
        Input(
            asset="drop",
            partition={"source": pin.source, "drop": pin.drop},
            manifest=pin.digest,
            outputs=tars[number] + listing.indexed,
        )
        for number, (pin, listing) in enumerate(zip(spec.drops, listings, strict=True))
    ]
    has_index = any(listing.indexed for listing in listings)
    return Resolved(
        params={
            "config": asdict(spec.config("snapshot", SnapshotConfig)),
            # The rows of an index are dealt by number; which tars fall to a shard is said by the inputs.
            "rows": asdict(ShardPlace(index=index, num_shards=spec.num_shards)) if has_index else None,
        },
        environment={"libsndfile": soundfile.__libsndfile_version__, **ffmpeg_versions()},
        inputs=tuple(entry for entry in inputs if entry.outputs),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Listing:
    """A drop's record, and of an indexed one what each of its shards reads."""

    drop: Drop
    indexed: list[NamedDigest]


#: By digest of ``drop.json``, and of those and the number of shards: every shard of a release asks for the same ones.
_listings: dict[str, _Listing] = {}
_deals: dict[tuple[tuple[str, ...], int], list[list[tuple[int, DropObject]]]] = {}


def _listing(store: Store, pin: DropPin) -> _Listing:
    if pin.digest not in _listings:
        drop = parse_drop(store.get_bytes(pin.digest), pin.digest)
        indexed: list[NamedDigest] = []
        if drop.format == "index":
            files = [[entry.name, entry.sha256] for entry in drop.objects if entry.name != drop.index.name]
            indexed = [
                NamedDigest(name=drop.index.name, digest=drop.index.digest),
                NamedDigest(name=FILES, digest=digest_json(sorted(files))),
            ]
            if drop.columns or drop.media_folder:
                said = {"columns": dict(drop.columns), "media_folder": drop.media_folder}
                indexed.append(NamedDigest(name=COLUMNS, digest=digest_json(said)))
        _listings[pin.digest] = _Listing(drop=drop, indexed=indexed)
    return _listings[pin.digest]


def _dealt(store: Store, pins: tuple[DropPin, ...], num_shards: int) -> list[list[tuple[int, DropObject]]]:
    key = (tuple(pin.digest for pin in pins), num_shards)
    if key not in _deals:
        _deals[key] = deal_tars([_listing(store, pin).drop for pin in pins], num_shards)
    return _deals[key]
