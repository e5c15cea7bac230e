"""What belongs to a shard, and reading it: the same objects and rows for everybody who counts to N.

WebDataset: the tars of all drops, in the release's order of drops and by key, tar i -> shard i mod N. Index: row r of
each drop -> shard r mod N.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mm_assets.drops.index import read_index
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.record import Drop, DropObject
from mm_assets.drops.rows import read_rows
from mm_assets.drops.samples import Contents, Spool, VerifiedReader
from mm_assets.drops.tar import read_tar
from mm_assets.errors import ObjectMissingError
from mm_assets.store.objects import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardPlace:
    """Which of how many shards."""

    index: int
    num_shards: int

    def takes(self, number: int) -> bool:
        """Whether input ``number`` belongs to this shard."""
        return number % self.num_shards == self.index


def deal_tars(drops: Sequence[Drop], num_shards: int) -> list[list[tuple[int, DropObject]]]:
    """Per shard its tars, in order, each with its drop's position in ``drops``."""
    shards: list[list[tuple[int, DropObject]]] = [[] for _ in range(num_shards)]
    tars = [
        (position, entry) for position, drop in enumerate(drops) if drop.format == "webdataset" for entry in drop.tars
    ]
    for number, tar in enumerate(tars):
        shards[number % num_shards].append(tar)
    return shards


def open_raw(store: Store, drop: Drop, entry: DropObject) -> VerifiedReader:
    """A verifying stream of one raw object.

    Raises:
        ObjectMissingError: it does not exist.
    """
    key = drop.prefix + entry.key
    try:
        stream = store.open_key(key)
    except ObjectMissingError as error:
        raise ObjectMissingError(
            f"{key}: is missing from the store: expected {entry.digest} ({entry.size_bytes} bytes), got nothing. "
            "Put it back with `mm drop push FOLDER` from the drop's folder, then run this partition again."
        ) from error
    return VerifiedReader(stream, entry, key)


def read_shard(
    store: Store,
    parts: Sequence[tuple[Drop, Sequence[str]]],
    place: ShardPlace | None,
    config: SnapshotConfig,
    spool: Spool,
    workdir: Path,
) -> Iterator[tuple[Drop, Contents]]:
    """What each tar, and each index, contributes to the shard; accepted bytes go to ``spool``.

    Args:
        store: Where the raw objects are.
        parts: The drops, each with the keys of its tars that fall to the shard.
        place: Which rows of an index fall to it; None if no drop has an index.
        config: The ceilings.
        spool: Where accepted bytes go.
        workdir: For the index while it is read.

    Raises:
        ObjectMissingError: a raw object does not exist. ObjectCorruptError: it has other bytes than declared.
        DropError: an index is unusable. StageError: a tar has too many members.
    """
    for drop, keys in parts:
        if drop.format == "webdataset":
            entries = {entry.key: entry for entry in drop.objects}
            for key in keys:
                yield drop, read_tar(open_raw(store, drop, entries[key]), key, config, spool)
    for drop, _ in parts:
        if drop.format == "index":
            assert place is not None
            yield drop, _read_indexed(store, drop, place, config, spool, workdir)


def _read_indexed(
    store: Store, drop: Drop, place: ShardPlace, config: SnapshotConfig, spool: Spool, workdir: Path
) -> Contents:
    path = _fetch_index(store, drop, workdir)
    try:
        rows = read_index(path, drop.prefix + drop.index.key)
        return read_rows(rows, drop, lambda entry: open_raw(store, drop, entry), config, spool, is_wanted=place.takes)
    finally:
        path.unlink()


def _fetch_index(store: Store, drop: Drop, workdir: Path) -> Path:
    path = workdir / drop.index.key
    reader = open_raw(store, drop, drop.index)
    with path.open("wb") as file:
        while chunk := reader.read():
            file.write(chunk)
    reader.finish()
    return path
