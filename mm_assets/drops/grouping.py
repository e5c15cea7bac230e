"""Groups the members of one tar into samples.

Members ``<key>.<number>.<extension>`` are parts of sample ``<key>``, read in the order of their numbers.
Neighbouring members of one key are a run. A later run of the same key completes the sample if it adds other
extensions (plain ``tar`` does not sort), and is a duplicate if it repeats one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from mm_assets.drops.fields import (
    LABEL_COLUMNS,
    NUMBERED_COLUMNS,
    as_text,
    expected_type,
    finish_sample,
    misspelt,
    parse_object,
    wrongly_typed,
)
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.parts import numbered_modality, part_of, reading_order, repeated_place
from mm_assets.drops.samples import Blob, Rejection, Sample, Spool
from mm_assets.modalities.reasons import Refusal
from mm_assets.modalities.table import any_of

#: Extensions that describe a sample.
DESCRIPTIONS = ("json", "cls")
#: The metadata entry that records members of other extensions by digest.
UNKNOWN_MEMBERS = "unknown_members"


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """One member of a sample: a blob, a description, or why it is refused.

    ``place`` is where the bytes of a blob or a description wait: offset and size in their spool.
    """

    extension: str
    member: str
    digest: str | None = None
    size_bytes: int | None = None
    format: str | None = None
    place: tuple[int, int] | None = None
    refusal: Refusal | None = None

    @property
    def is_unknown(self) -> bool:
        """Whether it is neither a modality nor a description."""
        return self.modality is None and self.refusal is None and self.extension not in DESCRIPTIONS

    @property
    def modality(self) -> str | None:
        """The modality its extension stands for, if any."""
        return numbered_modality(self.extension)

    def encode(self) -> list[Any]:
        """As JSON values."""
        refusal = None if self.refusal is None else (self.refusal.reason, self.refusal.detail)
        return [self.extension, self.member, self.digest, self.size_bytes, self.format, self.place, refusal]

    @classmethod
    def decode(cls, values: list[Any]) -> "Piece":
        """From what ``encode`` made."""
        extension, member, digest, size_bytes, kind, place, refusal = values
        return cls(
            extension=extension, member=member, digest=digest, size_bytes=size_bytes, format=kind,
            place=None if place is None else (place[0], place[1]),
            refusal=None if refusal is None else Refusal(*refusal),
        )  # fmt: skip


class Runs:
    """Numbers the runs of a tar's members as they come."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._extensions: set[str] = set()
        self._number = -1

    def number(self, key: str, extension: str) -> int:
        """The run that the next member belongs to."""
        if key != self._key or extension in self._extensions:
            self._key, self._extensions = key, set()
            self._number += 1
        self._extensions.add(extension)
        return self._number


def assemble(
    key: str, pieces: Sequence[tuple[int, Piece]], object_key: str, config: SnapshotConfig, descriptions: Spool
) -> Iterator[Sample | Rejection]:
    """What the members of one key amount to: a sample or why there is none, and a rejection per run that repeats one.

    Args:
        key: The sample's key within its drop.
        pieces: Its members in order, each with the number of its run.
        object_key: The tar.
        config: The ceilings.
        descriptions: Where the bytes of its descriptions are.
    """
    known: list[Piece] = []
    seen: set[str] = set()
    for _, found in groupby(pieces, key=itemgetter(0)):
        run = [piece for _, piece in found]
        repeated = next((piece for piece in run if piece.extension in seen), None)
        if repeated is None:
            known.extend(run)
            seen.update(piece.extension for piece in run)
        else:
            detail = f"id {key} occurs twice in {object_key}: member {repeated.member} again"
            yield _rejection(key, object_key, repeated, Refusal("duplicate_id", detail))
    yield _sample(key, known, object_key, config, descriptions)


def _sample(
    key: str, pieces: list[Piece], object_key: str, config: SnapshotConfig, descriptions: Spool
) -> Sample | Rejection:
    columns: dict[str, Any] = {}
    for piece in pieces:
        made = piece.refusal
        if made is None and piece.extension in DESCRIPTIONS:
            made = _described(piece, descriptions)
        if isinstance(made, Refusal):
            return _rejection(key, object_key, piece, made)
        columns |= made or {}
    blobs = [piece for piece in pieces if piece.modality is not None]
    places = [(str(piece.modality), part_of(piece.extension)[0]) for piece in blobs]
    repeated = repeated_place(places)
    if repeated is not None:
        detail = f"sample has two members of modality {places[repeated][0]}, and no number says which comes first"
        return _rejection(key, object_key, blobs[repeated], Refusal("ambiguous_modality", detail))
    unknown = {
        piece.extension: {"digest": piece.digest, "size_bytes": piece.size_bytes}
        for piece in pieces
        if piece.is_unknown
    }
    if unknown:
        columns[UNKNOWN_MEMBERS] = unknown
    if not blobs:
        found = ", ".join(piece.extension for piece in pieces)
        return _rejection(key, object_key, pieces[0], Refusal("no_modality", f"sample has no {any_of()}, only {found}"))
    parts = [_blob(blobs[position]) for position in reading_order(places)]
    return finish_sample(key, object_key, parts, columns, config)


def _described(piece: Piece, descriptions: Spool) -> dict[str, Any] | Refusal:
    assert piece.place is not None
    data = descriptions.read(*piece.place)
    return _parse_json(data) if piece.extension == "json" else _parse_class(data)


def _blob(piece: Piece) -> Blob:
    assert piece.place is not None
    assert piece.digest is not None
    assert piece.format is not None
    assert piece.modality is not None
    return Blob(
        modality=piece.modality,
        offset=piece.place[0],
        size_bytes=piece.place[1],
        digest=piece.digest,
        format=piece.format,
    )


def _parse_json(data: bytes) -> dict[str, Any] | Refusal:
    columns = parse_object(data, "json member", "bad_metadata")
    if isinstance(columns, Refusal):
        return columns
    columns |= as_text(columns, NUMBERED_COLUMNS & set(LABEL_COLUMNS))
    wrong = wrongly_typed(columns, LABEL_COLUMNS)
    if wrong:
        return Refusal("bad_metadata", f"json member: {wrong[0]} {wrong[1]}; {expected_type(wrong[0])} is expected")
    for name in columns:
        meant = misspelt(name, LABEL_COLUMNS)
        if meant and meant not in columns:
            return Refusal("bad_metadata", f"json member: {name} looks like a mistake for {meant}")
    return columns


def _parse_class(data: bytes) -> dict[str, Any] | Refusal:
    try:
        return {"label": data.decode("utf-8").strip() or None}
    except UnicodeDecodeError as error:
        return Refusal("bad_metadata", f"cls member is not UTF-8: byte {error.start}")


def _rejection(key: str, object_key: str, piece: Piece, refusal: Refusal) -> Rejection:
    return Rejection(
        reason=refusal.reason,
        detail=refusal.detail,
        object=object_key,
        key=key,
        member=piece.member,
        modality=piece.modality,
        digest=piece.digest,
        size_bytes=piece.size_bytes,
    )
