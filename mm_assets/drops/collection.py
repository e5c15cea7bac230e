"""Everything the readers of one shard, or of one drop, find: on disk while it is read, by id when it is read back.

Invariant: what is read back is each sample, each rejected sample and each other thing that was refused, exactly once,
in the order of ids, whatever the order of the raw data; memory does not grow with their number.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from mm_assets.drops.disk_sort import DiskSort
from mm_assets.drops.grouping import Piece, assemble
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.parts import part_of
from mm_assets.drops.record import Drop
from mm_assets.drops.samples import Blob, Rejection, Sample, Spool, id_of

#: Members of one sample, of whatever kind, are held together in memory.
MAX_SAMPLE_MEMBERS = 1024
#: Extensions are counted one by one up to this number; the others are counted together.
MAX_EXTENSIONS = 100
OTHER_EXTENSIONS = "other extensions"
MAX_EXTENSION_CHARS = 40
PLAIN_EXTENSION = re.compile(r"[a-z0-9._+-]+")


@dataclass(kw_only=True, slots=True)
class UnknownMembers:
    """Members of one extension that stands for no modality: how many, and the first of them."""

    object: str
    member: str
    num_members: int = 0


class Collection(AbstractContextManager["Collection"]):
    """Takes pieces, samples and rejections in the order of the raw data, and gives them back by id.

    Args:
        folder: An existing folder for its files.
        config: The ceilings.
        keeps_blobs: Whether the bytes of blobs are needed again.
    """

    def __init__(self, folder: Path, config: SnapshotConfig, *, keeps_blobs: bool = True) -> None:
        self.config = config
        self.blobs = Spool(folder / "blobs" if keeps_blobs else None)
        self.descriptions = Spool(folder / "descriptions")
        self.num_ignored = 0
        self.first_ignored: tuple[str, str] | None = None
        self.unknown: dict[str, UnknownMembers] = {}
        self.drops: list[Drop] = []
        self._objects: list[tuple[int, str]] = []
        self._records = DiskSort(folder, "found", num_keys=2)

    def __exit__(self, *_: object) -> None:
        self.blobs.__exit__()
        self.descriptions.__exit__()

    def begin(self, drop: Drop, object_key: str) -> None:
        """Says where what comes next was found."""
        if not self.drops or self.drops[-1] is not drop:
            self.drops.append(drop)
        self._objects.append((len(self.drops) - 1, object_key))

    def add_piece(self, key: str, run: int, piece: Piece) -> None:
        """One member of sample ``key``, in run number ``run`` of neighbouring members."""
        if piece.is_unknown:
            self._count_unknown(piece)
        self._append(key, "piece", run, piece.encode())

    def ignore(self, member: str) -> None:
        """Counts a member that is hidden or that describes the tar itself."""
        self.num_ignored += 1
        self.first_ignored = self.first_ignored or (self._objects[-1][1], member)

    def add_sample(self, sample: Sample) -> None:
        """A whole sample."""
        metadata = sample.metadata.encode()
        place = self.descriptions.append(metadata), len(metadata)
        parts = [asdict(part) for part in sample.parts]
        labels = sample.label, sample.language, sample.group
        self._append(sample.key, "sample", sample.object, parts, labels, place, sample.time_range)

    def add_rejection(self, rejection: Rejection) -> None:
        """Something that was refused, a sample or not."""
        self._append(rejection.key, "rejection", asdict(rejection))

    def read_back(self) -> Iterator[tuple[Drop, Sample | Rejection]]:
        """All of it by id; what has no id comes first.

        An id that two objects claim belongs to the one that was read first; the other one's sample is rejected.
        """
        for _, records in groupby(self._records, key=itemgetter(0)):
            first: Sample | None = None
            for number, found in groupby(records, key=itemgetter(1)):
                drop_number, object_key = self._objects[number]
                for made in self._made(object_key, found):
                    if isinstance(made, Sample):
                        if first is not None:
                            made = _taken(made, first)
                        else:
                            first = made
                    yield self.drops[drop_number], made

    def _append(self, key: str | None, kind: str, *values: Any) -> None:
        number = len(self._objects) - 1
        # What belongs to no sample sorts before every id.
        sample_id = "" if key is None else id_of(self.drops[-1], key)
        self._records.append(sample_id, number, kind, key, *values)

    def _made(self, object_key: str, records: Iterable[list[Any]]) -> Iterator[Sample | Rejection]:
        pieces: list[tuple[int, Piece]] = []
        key, num_pieces = "", 0
        for _, _, kind, key, *values in records:
            if kind == "piece":
                num_pieces += 1
                if num_pieces <= MAX_SAMPLE_MEMBERS:
                    pieces.append((values[0], Piece.decode(values[1])))
            elif kind == "sample":
                yield self._sample(key, *values)
            else:
                yield Rejection(**values[0])
        if num_pieces > MAX_SAMPLE_MEMBERS:
            detail = f"sample has {num_pieces} members; {MAX_SAMPLE_MEMBERS} are allowed"
            yield Rejection(reason="too_many_parts", detail=detail, object=object_key, key=key)
        elif pieces:
            yield from assemble(key, pieces, object_key, self.config, self.descriptions)

    def _sample(
        self,
        key: str,
        object_key: str,
        parts: list[Any],
        labels: list[Any],
        place: list[int],
        time_range: list[int | None] | None,
    ) -> Sample:
        label, language, group = labels
        return Sample(
            key=key,
            object=object_key,
            parts=tuple(Blob(**part) for part in parts),
            label=label,
            language=language,
            group=group,
            metadata=self.descriptions.read(*place).decode(),
            time_range=None if time_range is None else (time_range[0], time_range[1]),
        )

    def _count_unknown(self, piece: Piece) -> None:
        name = part_of(piece.extension)[1]
        if len(name) > MAX_EXTENSION_CHARS or not PLAIN_EXTENSION.fullmatch(name):
            name = OTHER_EXTENSIONS
        if name not in self.unknown and len(self.unknown) >= MAX_EXTENSIONS:
            name = OTHER_EXTENSIONS
        place = UnknownMembers(object=self._objects[-1][1], member=piece.member)
        self.unknown.setdefault(name, place).num_members += 1


def _taken(sample: Sample, first: Sample) -> Rejection:
    return Rejection(
        reason="duplicate_id",
        detail=f"id {sample.key} occurs in {first.object} already",
        object=sample.object,
        key=sample.key,
    )
