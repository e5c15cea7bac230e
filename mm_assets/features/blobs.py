"""Blobs of a snapshot: where each lies in ``samples.tar``, read by offset and verified by digest."""

from pathlib import Path
from types import TracebackType

from mm_assets.errors import ObjectCorruptError
from mm_assets.identity.canonical import digest_bytes
from mm_assets.snapshot.blobs import BlobRef


class TarBlobs:
    """The blobs of one ``samples.tar`` on disk; a context manager."""

    def __init__(self, path: Path):
        self._file = path.open("rb")

    def __enter__(self) -> "TarBlobs":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

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
