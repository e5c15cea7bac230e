"""What the structure of an MP4 or AVI says before a library opens it: whether it is whole, one file, self-contained.

FFmpeg allocates the index of an MP4 from a number in its header, so a file of a kilobyte could ask for gigabytes; it
reads a file that was cut off as if it ended there, and of two files one behind the other the first alone.

Source: ISO/IEC 14496-12 (boxes), the OpenDML AVI extensions.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from mm_assets.modalities.reasons import Refusal

#: Boxes that hold other boxes on the way to a track's tables.
CONTAINERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"moof", b"traf", b"edts"})
#: Of boxes within boxes; those of a track's tables are five deep.
MAX_DEPTH = 16
#: Of a file that has one fragment per frame, without sound beside it.
BOXES_PER_FRAME = 8
#: Of a file, beside those of its frames.
FURTHER_BOXES = 10_000
#: Boxes of which a file has one.
SINGLE = frozenset({b"ftyp", b"moov"})
QUICKTIME_BRAND = b"qt  "
#: Bit of a data reference: the media are in this file.
SELF_CONTAINED = 1


class Box(NamedTuple):
    """First byte of the content and end, as the box declares it; ``limit`` is where what holds it ends."""

    name: bytes
    content: int
    stop: int
    limit: int
    depth: int


def check_mp4(data: bytes, *, max_frames: int, max_samples: int) -> Refusal | None:
    """Why the boxes of an MP4 or QuickTime file cannot be used, if so.

    Args:
        data: The whole file.
        max_frames: Ceiling on frames, which bounds how many boxes there are.
        max_samples: Ceiling on what one table of a track may declare.
    """
    max_boxes = FURTHER_BOXES + BOXES_PER_FRAME * max_frames
    seen: set[bytes] = set()
    for number, box in enumerate(_boxes(data, 0, len(data)), 1):
        if number > max_boxes:
            return Refusal("too_many_boxes", f"mp4 has more than {max_boxes} boxes, which {max_frames} frames may have")
        if box.stop > len(data):
            return Refusal("truncated", f"mp4 box {_name(box)} ends at byte {box.stop}; the file has {len(data)}")
        if box.depth >= MAX_DEPTH:
            return Refusal("header_lies", f"mp4 box {_name(box)} is nested deeper than {MAX_DEPTH} boxes")
        if not box.depth and box.name in SINGLE:
            if box.name in seen:
                return Refusal("header_lies", f"mp4 has a second {_name(box)} at byte {box.content}, as two files have")
            seen.add(box.name)
        refusal = _check_table(data, box, max_samples)
        if refusal is None and box.name == b"dref":
            refusal = _check_references(data, box.content + 8, box.stop)
        if refusal is not None:
            return refusal
    return None


def _boxes(data: bytes, place: int, end: int, containers: frozenset[bytes] = CONTAINERS) -> Iterator[Box]:
    """Every box from ``place`` to ``end``, those within ``containers`` included, in the order of the file."""
    limits = [end]
    while limits:
        limit = limits[-1]
        if place + 8 > limit:
            place = limits.pop()
            continue
        size, name = struct.unpack_from(">I4s", data, place)
        content = place + 8
        if size == 1 and place + 16 <= limit:
            (size,) = struct.unpack_from(">Q", data, content)
            content = place + 16
        stop = limit if size == 0 else max(place + size, content)
        yield Box(name, content, stop, limit, len(limits) - 1)
        place = min(stop, limit)
        if name in containers:
            limits.append(place)
            place = content


def _check_table(data: bytes, box: Box, max_samples: int) -> Refusal | None:
    """Of tables that a number stands for alone: ``stsz`` with one size for all samples, and runs of fragments."""
    place = {b"stsz": 8, b"stz2": 8, b"trun": 4}.get(box.name)
    if place is None or box.content + place + 4 > box.stop:
        return None
    (count,) = struct.unpack_from(">I", data, box.content + place)
    if count > max_samples:
        return Refusal("too_many_frames", f"mp4 declares {count} samples in a track; {max_samples} are allowed")
    return None


def _check_references(data: bytes, start: int, end: int) -> Refusal | None:
    for entry in _boxes(data, start, end, frozenset()):
        if entry.content + 4 > min(entry.stop, entry.limit) or entry.stop > entry.limit:
            detail = f"mp4 data reference {_name(entry)} ends at byte {entry.stop}; its list ends at {entry.limit}"
            return Refusal("truncated", detail)
        if not data[entry.content + 3] & SELF_CONTAINED:
            detail = f"mp4 has media in another file, by a reference of type {_name(entry)}"
            return Refusal("external_reference", detail)
    return None


def _name(box: Box) -> str:
    printable = box.name.isascii() and box.name.decode("ascii").isprintable()
    return box.name.decode("ascii") if printable else box.name.hex()


def check_avi(data: bytes) -> Refusal | None:
    """Why the chunks of an AVI cannot be used, if so: longer ones go on in chunks of another name."""
    place = 0
    while data.startswith(b"RIFF", place) and place + 8 <= len(data):
        (size,) = struct.unpack_from("<I", data, place + 4)
        if place and data.startswith(b"AVI ", place + 8):
            return Refusal("header_lies", f"avi has a second file behind the first, from byte {place} on")
        place += 8 + size
        if place > len(data):
            return Refusal("truncated", f"avi ends at byte {place}; the file has {len(data)}")
        place += size % 2
    return None
