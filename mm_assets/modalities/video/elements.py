"""What the elements of a Matroska or WebM file say before a library opens it: whether it is whole and one file.

A file that was streamed does not say where its segment ends, and maybe not where its clusters do; their blocks do.

Source: RFC 8794 (EBML), RFC 9559 (Matroska).
"""

from mm_assets.modalities.reasons import Refusal

HEADER, DOC_TYPE, SEGMENT, CLUSTER = 0x1A45DFA3, 0x4282, 0x18538067, 0x1F43B675
#: Of a file whose clusters do not say where they end: their blocks are counted then, those of sound too.
ELEMENTS_PER_FRAME = 8
#: Of a file, beside those of its frames.
FURTHER_ELEMENTS = 10_000
#: The longest number that says what an element is.
MAX_ID_BYTES = 4


def doc_type(data: bytes) -> str | None:
    """``webm`` or ``matroska``; None if the EBML header says neither."""
    _, place, end = _element(data, 0)
    while end is not None and place < min(end, len(data)):
        number, content, stop = _element(data, place)
        if stop is None or number is None:
            return None
        if number == DOC_TYPE:
            name = data[content:stop].rstrip(b"\0")
            return name.decode("ascii") if name in (b"webm", b"matroska") else None
        place = stop
    return None


def check_matroska(data: bytes, *, max_frames: int) -> Refusal | None:
    """Why the elements of a file cannot be used, if so.

    Args:
        data: The whole file.
        max_frames: Ceiling on frames, which bounds how many elements there are.
    """
    max_elements = FURTHER_ELEMENTS + ELEMENTS_PER_FRAME * max_frames
    place, seen, num_elements = 0, set[int](), 0
    while place < len(data):
        number, content, stop = _element(data, place)
        if number is None:
            # Some programs fill the file with zeros.
            rest = data[place:].strip(b"\0")
            return Refusal("header_lies", f"matroska has no element at byte {place}") if rest else None
        if number in (HEADER, SEGMENT) and number in seen:
            return Refusal("header_lies", f"matroska has a second file behind the first, from byte {place} on")
        seen.add(number)
        if stop is None and number not in (SEGMENT, CLUSTER):
            return Refusal("header_lies", f"matroska element {number:x} at byte {place} does not say where it ends")
        if stop is not None and stop > len(data):
            return Refusal("truncated", f"matroska {_name(number)} ends at byte {stop}; the file has {len(data)}")
        num_elements += 1
        if num_elements > max_elements:
            detail = f"matroska has more than {max_elements} elements, which {max_frames} frames may have"
            return Refusal("too_many_boxes", detail)
        place = content if stop is None or number == SEGMENT else stop
    return None


def _name(number: int) -> str:
    return {SEGMENT: "segment", CLUSTER: "cluster"}.get(number, f"element {number:x}")


def _element(data: bytes, place: int) -> tuple[int | None, int, int | None]:
    """Id, first byte of the content and end of the EBML element at ``place``.

    The id is None where there is none, the end where it is unknown.
    """
    id_bytes = 9 - data[place].bit_length()
    if id_bytes > MAX_ID_BYTES:
        return None, place, None
    number = int.from_bytes(data[place : place + id_bytes], "big")
    place += id_bytes
    if place >= len(data) or not data[place]:
        # The number is cut off, or longer than any.
        return number, place, len(data) + 1
    size_bytes = 9 - data[place].bit_length()
    size = int.from_bytes(data[place : place + size_bytes], "big") & (1 << 7 * size_bytes) - 1
    content = place + size_bytes
    return number, content, None if size == (1 << 7 * size_bytes) - 1 else content + size
