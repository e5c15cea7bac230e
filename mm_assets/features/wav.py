"""What a WAV header claims, compared with the bytes that are there.

libsndfile silently repairs a data chunk that is longer than the file, so a lie has to be found before it decodes.
"""

import struct

from mm_assets.features.blobs import BlobRejectedError

PCM, IEEE_FLOAT, EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
REASON = "audio_header_lies"


def check_wav_header(data: bytes) -> None:
    """Checks the ``fmt`` and ``data`` chunks of a RIFF/WAVE blob; anything else is left to the decoder.

    Streaming placeholders (a data size of 0xFFFFFFFF) are refused too: such a header does not say how long the clip
    is.

    Raises:
        BlobRejectedError: ``audio_header_lies``, with what was declared and what was found.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return
    position, has_data = 12, False
    while position + 8 <= len(data):
        name, declared = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        present = len(data) - position - 8
        if name == b"fmt ":
            _check_format(data[position + 8 : position + 8 + declared])
        if name == b"data":
            has_data = True
            if declared > present:
                raise BlobRejectedError(REASON, f"data chunk: header declares {declared} bytes, the file has {present}")
        position += 8 + declared + declared % 2
    if not has_data:
        raise BlobRejectedError(REASON, "header declares a WAVE file, the file has no data chunk")


def _check_format(chunk: bytes) -> None:
    if len(chunk) < 16:
        raise BlobRejectedError(REASON, f"fmt chunk: expected at least 16 bytes, got {len(chunk)}")
    kind, channels, rate, byte_rate, block, bits = struct.unpack_from("<HHIIHH", chunk)
    if kind not in (PCM, IEEE_FLOAT, EXTENSIBLE):
        return
    expected = channels * ((bits + 7) // 8)
    if block != expected or byte_rate != rate * block:
        raise BlobRejectedError(
            REASON,
            f"fmt chunk: {channels} channels of {bits} bits at {rate} Hz need blocks of {expected} bytes and "
            f"{rate * expected} bytes per second, the header declares {block} and {byte_rate}",
        )
