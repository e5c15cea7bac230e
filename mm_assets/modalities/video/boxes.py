"""What the structure of a file says before a library opens it: whether it is whole, self-contained, of bounded tables.

FFmpeg allocates the index of an MP4 from a number in its header, so a file of a kilobyte could ask for gigabytes; and
it reads a file that was cut off as if it ended there.

Source: ISO/IEC 14496-12 (boxes), RFC 8794 (EBML), RFC 9559 (Matroska), the OpenDML AVI extensions.
"""

import struct
from collections.abc import Iterator

from mm_assets.modalities.reasons import Refusal

#: Boxes that hold other boxes on the way to a track's tables.
CONTAINERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"moof", b"traf", b"edts"})
MAX_BOXES = 10_000
#: Boxes in each other; a file as it should be has six.
MAX_DEPTH = 16
QUICKTIME_BRAND = b"qt  "
#: Bit of a data reference: the media are in this file.
SELF_CONTAINED = 1
EBML_ID, DOC_TYPE_ID, SEGMENT_ID = 0x1A45DFA3, 0x4282, 0x18538067


def check_mp4(data: bytes, max_samples: int) -> Refusal | None:
    """Why the boxes of an MP4 or QuickTime file cannot be used, if so.

    Args:
        data: The whole file.
        max_samples: Ceiling on what one table of a track may declare.
    """
    for number, (name, start, end, depth) in enumerate(_boxes(data, 0, len(data))):
        if depth > MAX_DEPTH:
            return Refusal("header_lies", f"mp4 has more than {MAX_DEPTH} boxes in each other")
        if number >= MAX_BOXES:
            return Refusal("header_lies", f"mp4 has more than {MAX_BOXES} boxes before its end")
        if end > len(data):
            return Refusal("truncated", f"mp4 box {_name(name)} ends at byte {end}; the file has {len(data)}")
        refusal = _check_box(name, data[start : min(end, start + 20)], max_samples)
        if refusal is None and name == b"dref":
            refusal = _check_references(data, start + 8, end)
        if refusal is not None:
            return refusal
    return None


def _boxes(data: bytes, start: int, end: int, depth: int = 1) -> Iterator[tuple[bytes, int, int, int]]:
    """Name, first byte of the content, end and depth of every box, those within ``CONTAINERS`` included."""
    while start + 8 <= end:
        size, name = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1 and start + 16 <= end:
            (size,) = struct.unpack_from(">Q", data, start + 8)
            content = start + 16
        stop = end if size == 0 else max(start + size, content)
        yield name, content, stop, depth
        if name in CONTAINERS:
            yield from _boxes(data, content, min(stop, end), depth + 1)
        start = stop


def _check_box(name: bytes, head: bytes, max_samples: int) -> Refusal | None:
    """Of tables that a number stands for alone: ``stsz`` with one size for all samples, and runs of fragments."""
    place = {b"stsz": 8, b"stz2": 8, b"trun": 4}.get(name)
    if place is None or len(head) < place + 4:
        return None
    (count,) = struct.unpack_from(">I", head, place)
    if count > max_samples:
        return Refusal("too_many_frames", f"mp4 declares {count} samples in a track; {max_samples} are allowed")
    return None


def _check_references(data: bytes, start: int, end: int) -> Refusal | None:
    for name, content, stop, _ in _boxes(data, start, end):
        if content + 4 <= stop and not data[content + 3] & SELF_CONTAINED:
            return Refusal("external_reference", f"mp4 has media in another file, by a reference of type {_name(name)}")
    return None


def _name(name: bytes) -> str:
    return name.decode("ascii") if name.isascii() and name.decode("ascii").isprintable() else name.hex()


def doc_type(data: bytes) -> str | None:
    """``webm`` or ``matroska``; None if the EBML header says neither."""
    place, end = _element(data, 0)[1:]
    while place < min(end, len(data)):
        number, content, stop = _element(data, place)
        if number == DOC_TYPE_ID:
            name = data[content:stop].rstrip(b"\0")
            return name.decode("ascii") if name in (b"webm", b"matroska") else None
        if stop <= place:
            return None
        place = stop
    return None


def check_matroska(data: bytes) -> Refusal | None:
    """Whether the segment ends after the end of the file; one that was streamed does not say where it ends."""
    number, _, end = _element(data, _element(data, 0)[2])
    if number == SEGMENT_ID and end > len(data):
        return Refusal("truncated", f"matroska segment ends at byte {end}; the file has {len(data)}")
    return None


def _element(data: bytes, place: int) -> tuple[int, int, int]:
    """Id, first byte of the content and end of the EBML element at ``place``; an unknown size ends where it begins."""
    number, place = _variable(data, place, keeps_marker=True)
    before = place
    size, place = _variable(data, place, keeps_marker=False)
    is_unknown = size == (1 << 7 * (place - before)) - 1
    return number, place, place if is_unknown else place + size


def _variable(data: bytes, place: int, *, keeps_marker: bool) -> tuple[int, int]:
    """A number of variable length, and where it ends; 0 where there is none."""
    if place >= len(data) or not data[place]:
        return 0, max(place, len(data))
    length = 9 - data[place].bit_length()
    value = int.from_bytes(data[place : place + length], "big")
    return (value if keeps_marker else value & (1 << 7 * length) - 1), place + length


def check_avi(data: bytes) -> Refusal | None:
    """Whether the RIFF chunk ends after the end of the file."""
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        return Refusal("truncated", f"avi ends at byte {size + 8}; the file has {len(data)}")
    return None
