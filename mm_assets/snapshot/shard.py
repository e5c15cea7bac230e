"""What belongs to a shard, and reading it: the same objects and rows for everybody who counts to N.

WebDataset: the tars of all drops, in the release's order of drops and by key, tar i -> shard i mod N. Index: its rows
are dealt in runs of neighbours, run i -> shard i mod N (``drops/layout.py``).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mm_assets.drops.collection import Collection
from mm_assets.drops.index import read_part
from mm_assets.drops.layout import Layout, lay_out, parse_layout
from mm_assets.drops.raw import open_object, open_raw
from mm_assets.drops.record import Drop, DropObject
from mm_assets.drops.rows import read_rows
from mm_assets.drops.samples import remedy
from mm_assets.drops.tar import read_tar
from mm_assets.errors import ObjectCorruptError
from mm_assets.identity.canonical import CHUNK_BYTES
from mm_assets.store.action import Action, find_action, record_action
from mm_assets.store.client import translated
from mm_assets.store.job import Job
from mm_assets.store.manifest import Input, NamedDigest, Output
from mm_assets.store.tables import JSON_TYPE

#: The asset that an action names which leads to a layout, and its output.
LAYOUT = "index_layout"


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


def read_shard(
    job: Job, parts: Sequence[tuple[Drop, Sequence[str]]], place: ShardPlace | None, found: Collection
) -> None:
    """Adds what each tar, and each index, contributes to the shard to ``found``.

    Args:
        job: Whose store has the raw objects, and whose folder is used for parts of an index.
        parts: The drops, each with the keys of its tars that fall to the shard.
        place: Which rows of an index fall to it; None if no drop has an index.
        found: Where samples and rejections go.

    Raises:
        ObjectMissingError: a raw object does not exist. ObjectCorruptError: it has other bytes than declared.
        DropError: an index is unusable. StageError: a tar cannot be read to its end, or has too many members.
    """
    for drop, keys in parts:
        if drop.format == "webdataset":
            entries = {entry.name: entry for entry in drop.objects}
            for key in keys:
                read_tar(open_raw(job.store, drop, entries[key]), drop, key, found)
    for drop, _ in parts:
        if drop.format == "index":
            assert place is not None
            _read_indexed(job, drop, place, found)


def _read_indexed(job: Job, drop: Drop, place: ShardPlace, found: Collection) -> None:
    layout = index_layout(job, drop, place.num_shards)
    where = drop.place(drop.index.name)
    path = job.workdir / f"index{PurePosixPath(where).suffix}"
    try:
        numbers = layout.parts_of(place.index, place.num_shards)
        _fetch_parts(job, drop, layout, numbers, path)
        rows = (
            row
            for number in numbers
            for row in read_part(path, where, layout.parts[number], drop.columns)
            if place.takes(layout.run_of(row.number))
        )
        read_rows(rows, drop, lambda entry: open_raw(job.store, drop, entry), found, repeated=layout.repeated)
    finally:
        path.unlink(missing_ok=True)


def index_layout(job: Job, drop: Drop, num_shards: int) -> Layout:
    """Where the rows of a drop's index are: remembered, so that one shard of all reads the whole of it.

    Raises:
        ObjectMissingError: the index does not exist. ObjectCorruptError: it has other bytes than declared.
        DropError: it is unusable.
    """
    index = NamedDigest(name=drop.index.name, digest=drop.index.digest)
    action = Action(
        asset=LAYOUT,
        code=job.action.code,
        params={"num_shards": num_shards, "columns": dict(drop.columns)},
        environment={},
        inputs=(Input(asset="index", partition={}, manifest=drop.index.digest, outputs=[index]),),
    )
    known = find_action(job.store, action)
    if known is not None:
        return parse_layout(job.store.get_bytes(known.outputs[0].digest))
    where = drop.place(drop.index.name)
    path = job.workdir / f"index{PurePosixPath(where).suffix}"
    reader = open_raw(job.store, drop, drop.index)
    with path.open("wb") as file:
        while chunk := reader.read():
            file.write(chunk)
    reader.finish()
    layout = lay_out(path, where, num_shards, job.workdir, drop.columns)
    path.unlink()
    data = layout.encode()
    output = Output(name=LAYOUT, digest=job.store.put_bytes(data), size_bytes=len(data), media_type=JSON_TYPE)
    record_action(job.store, action, [output], {"rows": layout.num_rows})
    return layout


def _fetch_parts(job: Job, drop: Drop, layout: Layout, numbers: Sequence[int], path: Path) -> None:
    """Writes some parts of an index to where they are in it, verified; what is between them stays a hole."""
    key = drop.place(drop.index.name)
    wanted = [
        (layout.parts[number].offset, layout.parts[number].size_bytes, layout.sha256[number]) for number in numbers
    ]
    wanted.append((*layout.shared, layout.shared_sha256))
    with path.open("wb") as file:
        for offset, size_bytes, sha256 in wanted:
            if not size_bytes:
                continue
            file.seek(offset)
            hasher = hashlib.sha256()
            body = open_object(job.store, drop, drop.index, first=offset, size_bytes=size_bytes)
            with body as stream, translated(key):
                while chunk := stream.read(CHUNK_BYTES):
                    hasher.update(chunk)
                    file.write(chunk)
            if hasher.hexdigest() != sha256:
                raise ObjectCorruptError(
                    f"{key}: bytes {offset} to {offset + size_bytes} are not those that its drop.json declares: "
                    f"expected sha256:{sha256}, got sha256:{hasher.hexdigest()}. "
                    f"{remedy(drop.index)}, then run this partition again."
                )
