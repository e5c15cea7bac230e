"""The pages of an Ogg file: whether the last one is whole, and whether another stream begins behind the first.

libsndfile reads the first of several streams that follow one another and says nothing of the others.

Source: RFC 3533.
"""

from mm_assets.modalities.reasons import Refusal

CAPTURE, HEADER_BYTES = b"OggS", 27
#: Places within a page's header: its flags, and how many lacing values follow the header.
FLAGS, NUM_SEGMENTS = 5, 26
#: Flag of the first page of a stream.
FIRST = 0x02


def check_ogg(data: bytes) -> Refusal | None:
    """Why the pages of an Ogg file cannot be used, if so; streams side by side begin before any of them goes on."""
    goes_on = False
    place = 0
    while place >= 0:
        body = place + HEADER_BYTES + (data[place + NUM_SEGMENTS] if place + NUM_SEGMENTS < len(data) else 0)
        end = body + sum(data[place + HEADER_BYTES : body])
        if end > len(data) or body > len(data) or place + HEADER_BYTES > len(data):
            return Refusal("truncated", f"ogg page at byte {place} ends behind the file, which has {len(data)} bytes")
        is_first = bool(data[place + FLAGS] & FIRST)
        if is_first and goes_on:
            return Refusal("header_lies", f"ogg has a second stream behind the first, from byte {place} on")
        goes_on = goes_on or not is_first
        place = data.find(CAPTURE, end)
    return None
