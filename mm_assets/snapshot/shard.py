"""What belongs to a shard, and reading it: the same objects and rows for everybody who counts to N.

WebDataset: the tars of all drops, in the release's order of drops and by key, tar i -> shard i mod N. Index: row r of
each drop -> shard r mod N.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mm_assets.errors import ObjectMissingError
from mm_assets.snapshot.config import SnapshotConfig
from mm_assets.snapshot.drop_record import Drop, DropObject
from mm_assets.snapshot.index import read_index
from mm_assets.snapshot.rows import read_rows
from mm_assets.snapshot.samples import Contents, Rejection, Sample, Spool, VerifiedReader
from mm_assets.snapshot.wds import read_tar
from mm_assets.store.objects import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardPlace:
    """Which of how many shards."""

    index: int
    num_shards: int

    def takes(self, number: int) -> bool:
        """Whether input ``number`` belongs to this shard."""
        return number % self.num_shards == self.index


def shard_tars(drops: Sequence[Drop], place: ShardPlace) -> Iterator[tuple[Drop, DropObject]]:
    """The shard's tars, in order."""
    tars = [(drop, entry) for drop in drops if drop.format == "webdataset" for entry in drop.tars]
    yield from (tar for number, tar in enumerate(tars) if place.takes(number))


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
    store: Store, drops: Sequence[Drop], place: ShardPlace, config: SnapshotConfig, spool: Spool, workdir: Path
) -> Iterator[tuple[Drop, Contents]]:
    """What each tar, and each index, contributes to the shard; accepted bytes go to ``spool``.

    Raises:
        ObjectMissingError: a raw object does not exist. ObjectCorruptError: it has other bytes than declared.
        DropError: an index is unusable. StageError: a tar has too many members.
    """
    for drop, entry in shard_tars(drops, place):
        yield drop, read_tar(open_raw(store, drop, entry), entry.key, config, spool)
    for drop in drops:
        if drop.format == "index":
            path = _fetch_index(store, drop, workdir)
            rows = read_index(path, drop.prefix + drop.index.key)
            yield (
                drop,
                read_rows(
                    rows, drop, lambda entry, drop=drop: open_raw(store, drop, entry), config, spool,
                    is_wanted=place.takes,
                ),
            )  # fmt: skip
            path.unlink()


def unique_by_id(
    parts: Iterator[tuple[Drop, Contents]],
) -> tuple[dict[str, tuple[Drop, Sample]], list[tuple[Drop, Rejection]], int]:
    """Samples by id, everything rejected, and the number of ignored members.

    An id that two objects of the shard claim belongs to the first; the other is rejected.
    """
    samples: dict[str, tuple[Drop, Sample]] = {}
    rejected: list[tuple[Drop, Rejection]] = []
    num_ignored = 0
    for drop, contents in parts:
        num_ignored += contents.num_ignored
        rejected.extend((drop, rejection) for rejection in contents.rejections)
        for sample in contents.samples:
            sample_id = id_of(drop, sample.key)
            if sample_id not in samples:
                samples[sample_id] = (drop, sample)
                continue
            first = samples[sample_id][1].object
            rejected.append(
                (
                    drop,
                    Rejection(
                        reason="duplicate_id",
                        detail=f"id {sample.key} occurs in {first} already",
                        object=sample.object,
                        key=sample.key,
                    ),
                )
            )
    return samples, rejected, num_ignored


def id_of(drop: Drop, key: str) -> str:
    """``<source>/<drop>/<key>``, the sample's id outside its drop."""
    return f"{drop.source}/{drop.drop}/{key}"


def _fetch_index(store: Store, drop: Drop, workdir: Path) -> Path:
    path = workdir / drop.index.key
    reader = open_raw(store, drop, drop.index)
    with path.open("wb") as file:
        while chunk := reader.read():
            file.write(chunk)
    reader.finish()
    return path
