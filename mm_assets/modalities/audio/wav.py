"""What a WAV header claims, compared with the bytes that are there.

libsndfile silently repairs a data chunk that is longer than the file, so a lie has to be found before it decodes.
Streaming placeholders (a data size of 0xFFFFFFFF) are refused too: such a header does not say how long the clip is.
"""

import struct

from mm_assets.modalities.reasons import Refusal

PCM, IEEE_FLOAT, EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
HEADER_BYTES = 12


def check_wav(data: bytes) -> Refusal | None:
    """Why the chunks of a RIFF/WAVE blob cannot be as declared, if so."""
    has_format = has_data = False
    place = HEADER_BYTES
    while place + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, place)
        present = len(data) - place - 8
        if not _is_name(name) or size > present:
            return Refusal(
                "header_lies", f"wav header declares a chunk of {size} bytes at byte {place}; {present} follow"
            )
        if name == b"RIFF" or (name == b"data" and has_data):
            return Refusal(
                "header_lies", f"wav has a second {'file' if name == b'RIFF' else 'data chunk'} at byte {place}"
            )
        if name == b"fmt ":
            refusal = _check_format(data[place + 8 : place + 8 + size])
            if refusal is not None:
                return refusal
            has_format = True
        elif name == b"data":
            if not has_format:
                return Refusal("bad_header", "wav has no format chunk before its data")
            has_data = True
        place += 8 + size + size % 2
    return None if has_data else Refusal("bad_header", "wav has no data chunk")


def _is_name(name: bytes) -> bool:
    return name.isascii() and name.decode("latin-1").isprintable()


def _check_format(chunk: bytes) -> Refusal | None:
    if len(chunk) < 16:
        return Refusal("bad_header", f"wav format chunk has {len(chunk)} bytes; at least 16 are needed")
    kind, channels, rate, byte_rate, block, bits = struct.unpack_from("<HHIIHH", chunk)
    expected = channels * ((bits + 7) // 8)
    is_plain = kind in (PCM, IEEE_FLOAT, EXTENSIBLE)
    if not channels or not block or (is_plain and (block != expected or byte_rate != rate * block)):
        return Refusal(
            "header_lies",
            f"wav header contradicts itself: {channels} channels of {bits} bits at {rate} Hz need {expected} bytes a "
            f"frame and {rate * expected} bytes per second, it declares {block} and {byte_rate}",
        )
    return None
