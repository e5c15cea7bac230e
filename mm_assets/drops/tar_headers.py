"""Headers of a tar, read so that none of them is passed over in silence.

The standard reader takes a damaged or missing header for the end of the archive, and what it does not understand of an
extended header for nothing. Here each is a ``ReadError``.
"""

import re
import tarfile
from typing import Any, cast

#: Extended headers hold names; a larger one, or more of them in a row, is an attack on memory or the stack.
MAX_HEADER_BYTES = 1 << 20
MAX_HEADERS_IN_A_ROW = 16
#: ``LENGTH NAME=``: the beginning of a record of an extended header; the length is that of the whole record.
RECORD = re.compile(rb"([1-9][0-9]{0,6}) ([^=\0\n]+)=")
NUMBER = re.compile(rb"[0-9]{1,20}")

EXTENDED_TYPES = frozenset(
    {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}
)


class StrictInfo(tarfile.TarInfo):
    """A header that never ends the archive silently, nor declares what nobody reads."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "StrictInfo":  # pyright: ignore[reportIncompatibleMethodOverride]
        """The next header; ``EOFHeaderError`` at the end marker."""
        try:
            return cast("StrictInfo", super().fromtarfile(archive))
        except tarfile.EOFHeaderError:  # pyright: ignore[reportAttributeAccessIssue]
            raise
        except tarfile.EmptyHeaderError as error:  # pyright: ignore[reportAttributeAccessIssue]
            raise tarfile.ReadError("ends without an end marker") from error
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.type in EXTENDED_TYPES:
            in_a_row, global_bytes = getattr(archive, "extended", (0, 0))
            global_bytes += self.size if self.type == tarfile.XGLTYPE else 0
            if max(self.size, global_bytes) > MAX_HEADER_BYTES:
                raise tarfile.ReadError(f"extended header of {self.size} bytes")
            if in_a_row >= MAX_HEADERS_IN_A_ROW:
                raise tarfile.ReadError(f"more than {MAX_HEADERS_IN_A_ROW} extended headers in a row")
            setattr(archive, "extended", (in_a_row + 1, global_bytes))  # noqa: B010 - per archive, as the headers are
        else:
            setattr(archive, "extended", (0, getattr(archive, "extended", (0, 0))[1]))  # noqa: B010
        return super()._proc_member(archive)  # pyright: ignore[reportAttributeAccessIssue]

    def _proc_sparse(self, archive: tarfile.TarFile) -> Any:
        if self._sparse_structs[1]:  # pyright: ignore[reportAttributeAccessIssue]
            raise tarfile.ReadError("sparse member with a map of any length")
        return super()._proc_sparse(archive)  # pyright: ignore[reportAttributeAccessIssue]

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise tarfile.ReadError("sparse member with a map of any length")

    def _proc_pax(self, archive: tarfile.TarFile) -> Any:
        stream: Any = archive.fileobj
        data = stream.read(self._block(self.size))  # pyright: ignore[reportAttributeAccessIssue]
        _require_records(data[: self.size])
        # The standard reader reads it once more.
        stream.buf = data + stream.buf
        stream.pos -= len(data)
        return super()._proc_pax(archive)  # pyright: ignore[reportAttributeAccessIssue]


def _require_records(data: bytes) -> None:
    """Raises ``ReadError`` unless an extended header is one record after the other, and zeros at most behind them."""
    place = 0
    end = len(data.rstrip(b"\0"))
    while place < end:
        record = RECORD.match(data, place)
        stop = place + int(record[1]) if record else 0
        if record is None or stop <= record.end() or stop > end or data[stop - 1 : stop] != b"\n":
            raise tarfile.ReadError(f"extended header is malformed at its byte {place}")
        if record[2] == b"size" and not NUMBER.fullmatch(data[record.end() : stop - 1]):
            raise tarfile.ReadError(f"extended header is malformed at its byte {place}: size is not a number")
        place = stop
