"""What a blob says about itself, read from its header: nothing here decodes pixels or sound.

A picture of 30,000 x 30,000 pixels costs as much as an icon here. Whether a blob really decodes is found out by
``features``, which decodes each blob exactly once.
"""

import io
import struct
from dataclasses import dataclass

import soundfile

from mm_assets.drops.limits import SnapshotConfig

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
#: JPEG markers without a length: padding, TEM, restarts, start of image.
JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
#: Start-of-frame markers; C4, C8 and CC are tables.
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
WAVE_EXTENSIBLE = 0xFFFE
SAMPLE_RATES_HZ = range(1_000, 768_001)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a blob is refused: a stable code and a sentence."""

    reason: str
    detail: str


def inspect_blob(modality: str, data: bytes, config: SnapshotConfig) -> str | Refusal:
    """The blob's format (``txt``, ``png``, ``wav``, ...), or why it is refused.

    The format is what the bytes are, whatever the file was called.
    """
    if not data:
        return Refusal("empty_file", f"{modality} has no bytes")
    if modality == "text":
        return _inspect_text(data)
    if modality == "image":
        return _inspect_image(data, config)
    return _inspect_audio(data, config)


def _inspect_text(data: bytes) -> str | Refusal:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return Refusal("text_not_utf8", f"text is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}")
    return "txt"


def _inspect_image(data: bytes, config: SnapshotConfig) -> str | Refusal:
    kind = _image_format(data)
    if kind is None:
        return Refusal("unsupported_format", "image is neither PNG, JPEG nor WebP")
    width, height = image_size(data)
    if not width or not height:
        return Refusal("bad_image_header", f"{kind} header declares no size")
    if width * height > config.max_image_pixels:
        return Refusal(
            "too_many_pixels", f"{kind} declares {width} x {height} pixels; {config.max_image_pixels} are allowed"
        )
    return kind


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height that a picture declares; zeros if it declares none or is no PNG, JPEG or WebP."""
    kind = _image_format(data)
    try:
        return {"png": _png_size, "jpg": _jpeg_size, "webp": _webp_size}[kind](data) if kind else (0, 0)
    except (struct.error, IndexError):
        return 0, 0


def _image_format(data: bytes) -> str | None:
    if data.startswith(PNG_MAGIC):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return None


def _png_size(data: bytes) -> tuple[int, int]:
    if data[12:16] != b"IHDR":
        return 0, 0
    return struct.unpack_from(">II", data, 16)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    place = 2
    while True:
        if data[place] != 0xFF:
            return 0, 0
        marker = data[place + 1]
        if marker == 0xFF or marker in JPEG_BARE:
            place += 1 if marker == 0xFF else 2
            continue
        if marker in JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return 0, 0


def _inspect_audio(data: bytes, config: SnapshotConfig) -> str | Refusal:
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        kind, seconds = "wav", _wav_seconds(data)
    else:
        found = _audio_format(data)
        if found is None:
            return Refusal("unsupported_format", "audio is neither WAV, FLAC, Ogg nor MP3")
        kind, seconds = found, _declared_seconds(data)
    if isinstance(seconds, Refusal):
        return seconds
    if seconds > config.max_audio_seconds:
        return Refusal(
            "too_many_seconds", f"{kind} declares {seconds:.1f} s of sound; {config.max_audio_seconds:g} s are allowed"
        )
    return kind


def _audio_format(data: bytes) -> str | None:
    if data.startswith(b"fLaC"):
        return "flac"
    if data.startswith(b"OggS"):
        return "ogg"
    is_frame = len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0
    return "mp3" if data.startswith(b"ID3") or is_frame else None


def _declared_seconds(data: bytes) -> float | Refusal:
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            if sound.frames <= 0:
                return Refusal("empty_audio", "audio declares no sound")
            return sound.frames / sound.samplerate
    except (soundfile.LibsndfileError, RuntimeError) as error:
        # The library's own sentence: the whole message also holds the address of the buffer, another one each time.
        said = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
        return Refusal("bad_audio_header", f"audio header cannot be read: {said}")


def _wav_seconds(data: bytes) -> float | Refusal:
    """Seconds of a WAV, whose chunks must lie within the file exactly as they declare."""
    block_bytes = rate = 0
    place = 12
    while place + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, place)
        if not name.isascii() or not name.decode("latin-1").isprintable() or place + 8 + size > len(data):
            return Refusal(
                "lying_header",
                f"wav header declares a chunk of {size} bytes at byte {place}; {len(data) - place - 8} follow",
            )
        if name == b"fmt ":
            if size < 16:
                return Refusal("bad_audio_header", f"wav format chunk has {size} bytes; at least 16 are needed")
            _, channels, rate, _, block_bytes, bits = struct.unpack_from("<HHIIHH", data, place + 8)
            if (
                not channels
                or rate not in SAMPLE_RATES_HZ
                or (bits >= 8 and block_bytes != channels * ((bits + 7) // 8))
            ):
                return Refusal(
                    "lying_header",
                    f"wav header contradicts itself: {channels} channels, {rate} Hz, {bits} bits, "
                    f"{block_bytes} bytes a frame",
                )
        elif name == b"data":
            if not block_bytes:
                return Refusal("bad_audio_header", "wav has no usable format chunk before its data")
            if size < block_bytes:
                return Refusal("empty_audio", "wav declares no sound")
            seconds = size / block_bytes / rate
            return _trailing_lie(data, place + 8 + size + size % 2) or seconds
        place += 8 + size + size % 2
    return Refusal("bad_audio_header", "wav has no data chunk")


def _trailing_lie(data: bytes, place: int) -> Refusal | None:
    """Refuses bytes after the data chunk that are no chunks: the header then declares less than there is."""
    while place + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, place)
        if not name.isascii() or not name.decode("latin-1").isprintable() or place + 8 + size > len(data):
            return Refusal("lying_header", f"wav header declares {place} bytes of {len(data)}")
        place += 8 + size + size % 2
    return None
