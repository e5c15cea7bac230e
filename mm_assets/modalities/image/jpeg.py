"""Whether a JPEG has as many pixels as its header declares: libjpeg itself fills what is missing with grey.

A picture of one scan is judged while it is decoded, at no cost: its data are handed over in pieces, and how many of
them the decoder asks for tells how much it wanted. The first of several scans is decoded twice more at an eighth of its
size.
"""

import re
import struct
from io import BytesIO

from PIL.JpegImagePlugin import JpegImageFile

#: Frame headers of Huffman-coded pictures; others are not judged.
FRAMES = (0xC0, 0xC1, 0xC2)
START_OF_SCAN = 0xDA
END = 0xD9
END_OF_IMAGE = b"\xff\xd9"
#: Fill bytes may come before a marker. The first byte stands alone: `re` looks for such a byte as fast as `bytes.find`.
MARKER = re.compile(rb"\xff\xff*[^\x00\xff\xd0-\xd7]")
#: Ones are no code: behind the data they are read as a few empty blocks at most, and the decoder reads ahead into them.
FILLER = b"\xff\x00" * 16
#: The last bytes of a scan, without which its last row cannot be complete.
LAST_BYTES = 8
MORE, FEWER = "declares more pixels than its data hold", "declares fewer pixels than its data hold"


def load_judged(image: JpegImageFile, data: bytes) -> str | None:
    """Decodes ``image``, which was opened from ``data``; how its header lies about its size, or None.

    Raises:
        OSError: what Pillow raises for damaged data.
    """
    scan = _first_scan(data)
    if scan is None:
        image.load()
        return None
    start, end, is_last = scan
    if not is_last:
        image.load()
        return _compare_scans(data, start, end)
    before = max(start, end - LAST_BYTES)
    feeder = _Feeder([data[:before], data[before:end] + FILLER, data[end:]])
    setattr(image, "load_read", feeder.read)  # noqa: B010 - Pillow looks for it on the object
    image.load()
    return {1: FEWER, 2: None}.get(feeder.num_read, MORE)


def _first_scan(data: bytes) -> tuple[int, int, bool] | None:
    """Begin and end of the first scan's coded data, and whether it is the only one; None if it is not to be judged."""
    place, is_judged = 2, False
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        is_judged = is_judged or marker in FRAMES
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]
        if marker == START_OF_SCAN:
            end = _scan_end(data, place)
            return (place, end[0], end[1] == END) if end and is_judged else None
    return None


def _scan_end(data: bytes, place: int) -> tuple[int, int] | None:
    """Where the first marker is that ends a scan, and which: neither a stuffed byte nor a restart."""
    found = MARKER.search(data, place)
    return (found.start(), data[found.end() - 1]) if found else None


class _Feeder:
    """Hands pieces of a file to a decoder, one each time it asks for more."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self.num_read = 0

    def read(self, num_bytes: int) -> bytes:
        """The next piece, whatever its size; empty behind the last one."""
        del num_bytes
        piece = self._pieces[self.num_read] if self.num_read < len(self._pieces) else b""
        self.num_read += 1
        return piece


def _compare_scans(data: bytes, start: int, end: int) -> str | None:
    """What the first of several scans tells: nothing behind its data may count, and its last bytes must."""
    plain = _small(data[:end] + END_OF_IMAGE)
    if plain != _small(data[:end] + FILLER + END_OF_IMAGE):
        return MORE
    before = max(start, end - LAST_BYTES)
    if plain != _small(data[:before] + _changed(data[before:end]) + END_OF_IMAGE):
        return None
    # Of a picture of one colour no data count, the last ones as little as all the others.
    is_told = plain != _small(data[:start] + _changed(data[start:end]) + END_OF_IMAGE)
    return FEWER if is_told else None


def _changed(coded: bytes) -> bytes:
    """Other coded data of the same length, without a marker that was not there."""
    changed = bytearray(coded)
    for place, value in enumerate(coded):
        is_stuffed = value == 0xFF or place == 0 or coded[place - 1] == 0xFF
        if not is_stuffed and value ^ 0x2A != 0xFF:
            changed[place] = value ^ 0x2A
    return bytes(changed)


def _small(data: bytes) -> bytes | None:
    """The picture at an eighth of its size, which is decoded from the first scan; None where it does not decode."""
    image = JpegImageFile(BytesIO(data))
    image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
    try:
        return image.tobytes()
    except OSError:
        return None
