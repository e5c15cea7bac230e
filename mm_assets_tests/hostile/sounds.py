"""Damaged, lying and foreign sounds and texts."""

import io
import struct

import numpy as np
import soundfile

NUM_FRAMES = 4000
RATE = 8000


def encoded(kind: str, subtype: str | None = None, values: np.ndarray | None = None, rate: int = RATE) -> bytes:
    """A sound as libsndfile writes it."""
    file = io.BytesIO()
    wave = 0.3 * np.sin(np.arange(NUM_FRAMES) / 7) if values is None else values
    soundfile.write(file, wave, rate, format=kind, subtype=subtype)
    return file.getvalue()


def wav_of(*chunks: tuple[bytes, bytes], sizes: dict[bytes, int] | None = None) -> bytes:
    """A WAV of these chunks; ``sizes`` are declared in place of the true ones."""
    body = b"".join(
        name + struct.pack("<I", (sizes or {}).get(name, len(data))) + data + bytes(len(data) % 2)
        for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def fmt(
    kind: int = 1,
    channels: int = 1,
    rate: int = RATE,
    bits: int = 16,
    block: int | None = None,
    byte_rate: int | None = None,
) -> tuple[bytes, bytes]:
    block = channels * bits // 8 if block is None else block
    byte_rate = rate * block % (1 << 32) if byte_rate is None else byte_rate
    return b"fmt ", struct.pack("<HHIIHH", kind, channels, rate, byte_rate, block, bits)


def waves() -> dict[str, bytes]:
    """Files that begin like a WAV."""
    data = b"data", bytes(range(256)) * 8
    floats = np.zeros(NUM_FRAMES)
    floats[1000] = np.nan
    infinite = np.zeros(NUM_FRAMES)
    infinite[1000] = np.inf
    good = encoded("WAV")
    return {
        "wav_good.wav": good,
        "wav_empty.wav": b"",
        "wav_start_alone.wav": good[:12],
        "wav_cut_in_format.wav": good[:24],
        "wav_cut_in_data.wav": good[:1000],
        "wav_without_format.wav": wav_of(data),
        "wav_format_behind_data.wav": wav_of(data, fmt()),
        "wav_without_data.wav": wav_of(fmt()),
        "wav_data_of_0_bytes.wav": wav_of(fmt(), (b"data", b"")),
        "wav_format_short.wav": wav_of((b"fmt ", b"\1\0\1\0"), data),
        "wav_channels_0.wav": wav_of(fmt(channels=0), data),
        "wav_channels_65.wav": wav_of(fmt(channels=65), (b"data", bytes(130 * 20))),
        "wav_rate_0.wav": wav_of(fmt(rate=0), data),
        "wav_rate_4_billion.wav": wav_of(fmt(rate=0xFFFFFFFF), data),
        "wav_rate_100.wav": wav_of(fmt(rate=100), data),
        "wav_bits_0.wav": wav_of(fmt(bits=0), data),
        "wav_bits_7.wav": wav_of(fmt(bits=7, block=1), data),
        "wav_block_lies.wav": wav_of(fmt(block=7), data),
        "wav_byte_rate_lies.wav": wav_of(fmt(byte_rate=3), data),
        "wav_data_longer_than_file.wav": wav_of(fmt(), data, sizes={b"data": 200_000}),
        "wav_streaming_size.wav": wav_of(fmt(), data, sizes={b"data": 0xFFFFFFFF}),
        "wav_chunk_name_binary.wav": wav_of(fmt(), (b"\x01\x02\x03\x04", b"xx"), data),
        "wav_list_longer_than_file.wav": wav_of(fmt(), (b"LIST", b"INFO"), data, sizes={b"LIST": 1 << 30}),
        "wav_codec_unknown.wav": wav_of(fmt(kind=0x1234), data),
        "wav_codec_mp3.wav": wav_of(fmt(kind=0x55), data),
        "wav_nan.wav": encoded("WAV", "FLOAT", floats),
        "wav_infinite.wav": encoded("WAV", "DOUBLE", infinite),
        "wav_two_formats.wav": wav_of(fmt(), fmt(channels=2), data),
        "wav_bytes_behind_end.wav": good + b"abc",
        "wav_rf64.wav": b"RF64" + good[4:],
        "wav_big_endian.wav": encoded("WAV").replace(b"RIFF", b"RIFX", 1),
        "wav_601_seconds.wav": wav_of(fmt(rate=1000, bits=8), (b"data", bytes(601_000))),
        "wav_half_a_frame.wav": wav_of(fmt(channels=2), (b"data", bytes(4 * 100 + 3))),
    }


def packed() -> dict[str, bytes]:
    """FLAC, Ogg and MP3 files, and files of other formats under the names of sounds."""
    flac, ogg, mp3 = encoded("FLAC"), encoded("OGG"), encoded("MP3", values=0.3 * np.sin(np.arange(16_000) / 7))
    length = struct.unpack_from(">Q", flac, 18)[0]

    def declaring(num_frames: int) -> bytes:
        return flac[:18] + struct.pack(">Q", (length >> 36 << 36) | num_frames) + flac[26:]

    return {
        "flac_good.flac": flac,
        "flac_empty.flac": b"",
        "flac_start_alone.flac": b"fLaC",
        "flac_zeroed_header.flac": b"fLaC" + bytes(60),
        "flac_cut_in_header.flac": flac[:30],
        "flac_header_alone.flac": flac[:42],
        "flac_cut.flac": flac[: len(flac) // 2],
        "flac_zeroed.flac": flac[:60] + bytes(len(flac) - 60),
        "flac_without_length.flac": declaring(0),
        "flac_declares_more.flac": declaring(NUM_FRAMES * 4),
        "flac_declares_years.flac": declaring((1 << 36) - 1),
        "flac_without_length_cut.flac": declaring(0)[:50],
        "flac_metadata_endless.flac": flac[:42] + (b"\x01\xff\xff\xff" + bytes(50)),
        "ogg_good.ogg": ogg,
        "ogg_empty.ogg": b"",
        "ogg_start_alone.ogg": b"OggS",
        "ogg_first_page_alone.ogg": ogg[:58],
        "ogg_cut_in_tables.ogg": ogg[:500],
        "ogg_cut.ogg": ogg[: len(ogg) * 2 // 3],
        "ogg_zeroed.ogg": ogg[:28] + bytes(len(ogg) - 28),
        "ogg_checksum.ogg": ogg[:22] + b"\0\0\0\0" + ogg[26:],
        "mp3_good.mp3": mp3,
        "mp3_empty.mp3": b"",
        "mp3_sync_alone.mp3": b"\xff\xfb",
        "mp3_tag_alone.mp3": b"ID3\x04\0\0\0\0\0\0",
        "mp3_tag_endless.mp3": b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(100),
        "mp3_tag_and_nonsense.mp3": b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + b"nonsense" * 50,
        "mp3_sync_and_nonsense.mp3": b"\xff\xfb\x90\x64" + b"nonsense" * 50,
        "mp3_cut_in_frame.mp3": mp3[:100],
        "m4a.mp3": b"\0\0\0\x20ftypM4A " + bytes(60),
        "aiff.wav": encoded("AIFF"),
        "au.wav": encoded("AU"),
        "html.wav": b"<!doctype html><title>404 Not Found</title>",
        "text.flac": b"hello",
        "zeros.mp3": bytes(4096),
        "midi.wav": b"MThd\0\0\0\6\0\1\0\1\0\x60MTrk\0\0\0\0",
        "png.ogg": b"\x89PNG\r\n\x1a\n" + bytes(50),
        "flac_named_wav.wav": flac,
    }


def sounds() -> dict[str, bytes]:
    """All of them, by the name of their file."""
    return waves() | packed()


def texts() -> dict[str, bytes]:
    """Texts that are none, or nearly none."""
    return {
        "good.txt": "Zażółć gęślą jaźń 👩‍🚀".encode(),
        "empty.txt": b"",
        "latin1.txt": b"caf\xe9",
        "utf16.txt": "hello".encode("utf-16"),
        "utf16_without_mark.txt": "hëllo€".encode("utf-16-le"),
        "overlong_slash.txt": b"a\xc0\xafb",
        "lone_surrogate.txt": b"a\xed\xa0\x80b",
        "surrogate_pair.txt": b"\xed\xa0\xbd\xed\xb8\x80",
        "beyond_unicode.txt": b"\xf4\x90\x80\x80",
        "cut_character.txt": "abc€".encode()[:-1],
        "lone_continuation.txt": b"abc\x80",
        "byte_ff.txt": b"\xff",
        "too_large.txt": b"x" * ((1 << 20) + 1),
        "at_the_ceiling.txt": b"x" * (1 << 20),
        "nul.txt": b"a\0b",
        "byte_order_mark.txt": b"\xef\xbb\xbfhello",
        "controls.txt": bytes(range(1, 32)),
        "reversed.txt": "abc\u202edef".encode(),
        "gzip.txt": b"\x1f\x8b\x08\0\0\0\0\0\0\3",
        "combining.txt": ("a" + "\u0301" * 5000).encode(),
    }
