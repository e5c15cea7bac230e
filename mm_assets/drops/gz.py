"""Reads one gzip member as a stream, with a ceiling on what it unpacks to.

Anything behind the member's end is an error: a second member, as where files were concatenated, would be read by some
readers and left out by others.
"""

import tarfile
import zlib

from mm_assets.drops.samples import VerifiedReader
from mm_assets.errors import StageError

#: Window bits with which zlib expects a gzip header and compares the checksum at the end.
GZIP_WINDOW = 31
GZIP_SUFFIXES = (".gz", ".tgz")


class GzipReader:
    """The unpacked bytes of a verified stream.

    Args:
        reader: The packed bytes.
        max_bytes: How many bytes it may unpack to.
        where: What errors call it.
    """

    def __init__(self, reader: VerifiedReader, max_bytes: int, where: str) -> None:
        self._reader = reader
        self._max_bytes = max_bytes
        self._where = where
        self._unpack = zlib.decompressobj(GZIP_WINDOW)
        self._num_bytes = 0

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; empty at the end.

        Raises:
            ReadError: the bytes are not one whole gzip member.
            StageError: it unpacks to more than ``max_bytes``.
        """
        while not self._unpack.eof:
            packed = self._unpack.unconsumed_tail or self._reader.read()
            if not packed:
                raise tarfile.ReadError("the gzip member has no end")
            try:
                data = self._unpack.decompress(packed, size)
            except zlib.error as error:
                raise tarfile.ReadError(f"gzip: {error}") from error
            self._num_bytes += len(data)
            if self._num_bytes > self._max_bytes:
                raise StageError(
                    f"{self._where}: unpacks to more than {self._max_bytes} bytes: expected at most that many "
                    "(max_unpacked_bytes of the configuration). Split the tar, or deliver it unpacked."
                )
            if data:
                return data
        if self._unpack.unused_data or self._reader.read(1):
            raise tarfile.ReadError("data behind the end of the gzip member, as where files were concatenated")
        return b""
