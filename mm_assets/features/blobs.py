"""Blobs of a snapshot: where each lies in ``samples.tar``, read by offset and verified by digest."""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from mm_assets.errors import ObjectCorruptError
from mm_assets.identity.canonical import digest_bytes
from mm_assets.snapshot.blobs import BlobRef

#: Blobs that several samples share are kept up to this size, and the last one of whatever size.
HELD_BYTES = 128 << 20


@dataclass(kw_only=True, slots=True)
class HeldBlob:
    """Bytes that were read and verified, and what a decoder prepared of them, if it did."""

    data: bytes
    prepared: Any = None


class TarBlobs:
    """The blobs of one ``samples.tar`` on disk; a context manager."""

    def __init__(self, path: Path):
        self._file = path.open("rb")
        self._held: dict[tuple[str, str], HeldBlob] = {}

    def __enter__(self) -> "TarBlobs":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def held(self, ref: BlobRef) -> HeldBlob:
        """The blob, which is kept for the next samples that are ranges of time of it.

        Raises:
            ObjectCorruptError: see ``read``.
        """
        key = ref.modality, ref.digest
        blob = self._held.pop(key, None)
        if blob is None:
            # The longest unused go first.
            while self._held and ref.size_bytes + sum(len(other.data) for other in self._held.values()) > HELD_BYTES:
                del self._held[next(iter(self._held))]
            blob = HeldBlob(data=self.read(ref))
        self._held[key] = blob
        return blob

    def read(self, ref: BlobRef) -> bytes:
        """The blob's bytes.

        Raises:
            ObjectCorruptError: they do not have the digest that ``samples.parquet`` states.
        """
        self._file.seek(ref.offset)
        data = self._file.read(ref.size_bytes)
        actual = digest_bytes(data)
        if actual != ref.digest:
            raise ObjectCorruptError(
                f"sample {ref.sample}: {ref.name} in samples.tar does not match samples.parquet: "
                f"expected {ref.digest}, got {actual}. Run the shard's snapshot again."
            )
        return data
