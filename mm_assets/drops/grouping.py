"""Groups the members of one tar into samples.

Neighbouring members of one key are a run. A later run of the same key completes the sample if it adds other
extensions (plain ``tar`` does not sort), and is a duplicate if it repeats one.
"""

import tarfile
from dataclasses import dataclass, field, replace
from typing import Any

from mm_assets.drops.fields import finish_sample
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.samples import Blob, Contents, Rejection, Sample
from mm_assets.modalities.reasons import Refusal
from mm_assets.modalities.table import MODALITY_OF, any_of

#: Extensions that describe a sample.
DESCRIPTIONS = ("json", "cls")
#: The metadata entry that records members of other extensions by digest.
UNKNOWN_MEMBERS = "unknown_members"


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """One member of a sample: a blob, values of columns, or why it is refused."""

    extension: str
    member: str
    blob: Blob | None = None
    values: dict[str, Any] = field(default_factory=dict)
    refusal: Refusal | None = None
    digest: str | None = None
    size_bytes: int | None = None

    @property
    def is_unknown(self) -> bool:
        """Whether it is neither a modality nor a description."""
        return self.blob is None and self.refusal is None and self.extension not in DESCRIPTIONS

    @property
    def modality(self) -> str | None:
        """The modality its extension stands for, if any."""
        return MODALITY_OF.get(self.extension)


class Grouping:
    """Members in, ``Contents`` out."""

    def __init__(self, object_key: str, config: SnapshotConfig) -> None:
        self.config = config
        self.contents = Contents()
        self.last_member = ""
        self._object = object_key
        self._pieces: dict[str, list[Piece]] = {}
        self._run: list[Piece] = []
        self._run_key = ""
        self._begun: tuple[str, Piece] | None = None

    def reject(self, info: tarfile.TarInfo, reason: str, detail: str) -> None:
        """Records a member that belongs to no sample."""
        self.contents.rejections.append(
            Rejection(reason=reason, detail=detail, object=self._object, member=info.name, size_bytes=info.size)
        )

    def begin(self, key: str, piece: Piece) -> None:
        """Announces a member of sample ``key`` whose bytes are about to be read."""
        self._begun = (key, piece)

    def break_off(self, refusal: Refusal) -> None:
        """Ends the tar: the sample whose member was being read is refused, or else the tar itself is at fault."""
        if self._begun is None:
            self.contents.rejections.append(
                Rejection(reason=refusal.reason, detail=refusal.detail, object=self._object)
            )
        else:
            key, piece = self._begun
            self.add(key, replace(piece, refusal=refusal))

    def add(self, key: str, piece: Piece) -> None:
        """Adds one member of sample ``key``."""
        self._begun = None
        if key != self._run_key or any(piece.extension == other.extension for other in self._run):
            self._end_run()
            self._run_key = key
        self._run.append(piece)

    def finish(self) -> Contents:
        """All samples and rejections."""
        self._end_run()
        for key, pieces in self._pieces.items():
            made = _assemble(key, pieces, self._object, self.config)
            if isinstance(made, Sample):
                self.contents.samples.append(made)
            else:
                self.contents.rejections.append(made)
        return self.contents

    def _end_run(self) -> None:
        run, self._run = self._run, []
        if not run:
            return
        known = self._pieces.setdefault(self._run_key, [])
        seen = {piece.extension for piece in known}
        repeated = next((piece for piece in run if piece.extension in seen), None)
        if repeated is None:
            known.extend(run)
            return
        detail = f"id {self._run_key} occurs twice in {self._object}: member {repeated.member} again"
        self.contents.rejections.append(_rejection(self._run_key, self._object, repeated, "duplicate_id", detail))


def _assemble(key: str, pieces: list[Piece], object_key: str, config: SnapshotConfig) -> Sample | Rejection:
    for piece in pieces:
        if piece.refusal is not None:
            return _rejection(key, object_key, piece, piece.refusal.reason, piece.refusal.detail)
    blobs: dict[str, Blob] = {}
    columns: dict[str, Any] = {}
    for piece in pieces:
        if piece.blob is not None and piece.modality is not None:
            if piece.modality in blobs:
                detail = f"sample has two members of modality {piece.modality}"
                return _rejection(key, object_key, piece, "ambiguous_modality", detail)
            blobs[piece.modality] = piece.blob
        columns |= piece.values
    unknown = {
        piece.extension: {"digest": piece.digest, "size_bytes": piece.size_bytes}
        for piece in pieces
        if piece.is_unknown
    }
    if unknown:
        columns[UNKNOWN_MEMBERS] = unknown
    if not blobs:
        found = ", ".join(piece.extension for piece in pieces)
        return _rejection(key, object_key, pieces[0], "no_modality", f"sample has no {any_of()}, only {found}")
    return finish_sample(key, object_key, blobs, columns, config)


def _rejection(key: str, object_key: str, piece: Piece, reason: str, detail: str) -> Rejection:
    return Rejection(
        reason=reason,
        detail=detail,
        object=object_key,
        key=key,
        member=piece.member,
        modality=piece.modality,
        digest=piece.digest,
        size_bytes=piece.size_bytes,
    )
