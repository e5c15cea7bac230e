"""Whether a PNG has as many rows as its header declares: Pillow leaves those that are missing black."""

import struct
import zlib

from PIL.PngImagePlugin import PngImageFile

#: Channels by the colour type of the header.
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
#: Of the seven passes of an interlaced picture: first column and row, and the distance of columns and of rows.
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
HEADER_PLACE = 16
FIRST_CHUNK = 8
READ_BYTES = 1 << 20


def misses_rows(image: PngImageFile, data: bytes) -> bool:
    """Whether the data of a decoded picture end before its last row.

    Its data are unpacked once more only where the last row is black or clear in every pixel, or the rows are
    interlaced: elsewhere the last row tells that all are there.
    """
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, HEADER_PLACE)
    if not interlaced and any(image.crop((0, height - 1, width, height)).tobytes()):
        return False
    bits = depth * CHANNELS[colour]
    passes = PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = ((-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes)
    expected = sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)
    return _count_unpacked(data, at_most=expected) < expected


def _count_unpacked(data: bytes, *, at_most: int) -> int:
    """Bytes that the first run of data chunks unpacks to; counting ends at ``at_most``."""
    unpack, num_bytes, place, begun = zlib.decompressobj(), 0, FIRST_CHUNK, False
    while place + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, place)
        if name == b"IDAT":
            begun, packed = True, data[place + 8 : place + 8 + size]
            while packed and num_bytes < at_most:
                num_bytes += len(unpack.decompress(packed, READ_BYTES))
                packed = unpack.unconsumed_tail
        elif begun:
            break
        place += 12 + size
    return num_bytes
