"""Damaged, lying and foreign videos."""

import io
import struct
from fractions import Fraction
from typing import Any

import av
import numpy as np

from mm_assets_tests.videos import tone, video

NUM_FRAMES = 100_000
YEARS = b"\x7f\xff\xff\xff"
#: Ids of EBML elements of the first video track.
WIDTH, SEGMENT = b"\xb0", b"\x18\x53\x80\x67"


def short(container: str = "mp4", codec: str = "libx264", **values: Any) -> bytes:
    """A third of a second."""
    return video(container, codec, **{"seconds": 0.32, "size": (32, 32), "gop": 4} | values)


def patched(data: bytes, name: bytes, offset: int, value: bytes) -> bytes:
    """``value`` so many bytes behind the name of the first box or element of that name."""
    place = data.index(name) + len(name) + offset
    return data[:place] + value + data[place + len(value) :]


def box(name: bytes, content: bytes = b"") -> bytes:
    """A box of an MP4."""
    return struct.pack(">I4s", 8 + len(content), name) + content


def nested(depth: int) -> bytes:
    """Boxes in boxes."""
    content = b""
    for _ in range(depth):
        content = box(b"moov", content)
    return box(b"ftyp", b"isom" + bytes(8)) + content


def repeated(count: int, *, timed: bool = True) -> bytes:
    """A Matroska file of one tiny frame, shown again every millisecond."""
    made = io.BytesIO()
    with av.open(io.BytesIO(short("matroska", "mpeg4", seconds=0.04, size=(16, 16)))) as source:
        stream = source.streams.video[0]
        frame = bytes(next(source.demux(stream)))
        with av.open(made, "w", format="matroska") as output:
            copy = output.add_stream_from_template(stream)
            output.start_encoding()
            for number in range(count):
                packet = av.Packet(frame)
                packet.stream, packet.time_base, packet.is_keyframe = copy, Fraction(1, 1000), True
                packet.pts = packet.dts = number if timed else 0
                output.mux(packet)
    return made.getvalue()


def sound_alone(container: str, codec: str) -> bytes:
    """A container with a track of sound and no pictures."""
    made = io.BytesIO()
    with av.open(made, "w", format=container) as output:
        track: Any = output.add_stream(codec, rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(tone(0.02)[None, :960]), format="fltp", layout="mono")
        frame.sample_rate = 48_000
        output.mux(track.encode(frame))
        output.mux(track.encode(None))
    return made.getvalue()


def of_many_streams(count: int) -> bytes:
    """A Matroska file with so many tracks of sound, of which one holds any."""
    made = io.BytesIO()
    with av.open(made, "w", format="matroska") as output:
        tracks = [output.add_stream("pcm_s16le", rate=8000, layout="mono") for _ in range(count)]
        packet = av.Packet(bytes(320))
        packet.stream, packet.time_base, packet.pts, packet.dts = tracks[0], Fraction(1, 8000), 0, 0
        output.mux(packet)
    return made.getvalue()


def rotated() -> bytes:
    """An MP4 whose track says that it is to be turned by 90 degrees."""
    turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    return patched(short(size=(64, 32)), b"tkhd", 40, turned)


def mp4s() -> dict[str, bytes]:
    """MP4 and QuickTime files."""
    good, sounding = short(), short(sound="aac")
    index = good.index(b"moov") - 4
    return {
        "mp4_good.mp4": good,
        "mp4_with_sound.mp4": sounding,
        "mp4_empty.mp4": b"",
        "mp4_start_alone.mp4": good[:24],
        "mp4_cut_in_frames.mp4": good[: index // 2],
        "mp4_cut_before_index.mp4": good[:index],
        "mp4_cut_in_index.mp4": good[:-100],
        "mp4_index_alone.mp4": good[:24] + good[index:],
        "mp4_frames_zeroed.mp4": good[:60] + bytes(index - 60) + good[index:],
        "mp4_frame_damaged.mp4": good[: index // 2] + bytes(100) + good[index // 2 + 100 :],
        "mp4_bytes_behind_end.mp4": good + b"abcdefghij",
        "mp4_boxes_behind_end.mp4": good + box(b"free") * 20_000,
        "mp4_boxes_nested.mp4": nested(3000),
        "mp4_box_of_2_63_bytes.mp4": good[:index] + struct.pack(">I4sQ", 1, b"moov", 1 << 63),
        "mp4_samples_4_billion.mp4": patched(good, b"stsz", 8, b"\xff\xff\xff\xff"),
        "mp4_samples_0.mp4": patched(good, b"stsz", 8, bytes(4)),
        "mp4_samples_one_more.mp4": patched(good, b"stsz", 8, struct.pack(">I", 9)),
        "mp4_sample_size_lies.mp4": patched(good, b"stsz", 4, struct.pack(">I", 1 << 30)),
        "mp4_chunk_offset_lies.mp4": patched(good, b"stco", 8, b"\xff\xff\xff\xf0"),
        "mp4_seconds_of_frames_0.mp4": patched(good, b"stts", 12, bytes(4)),
        "mp4_timescale_0.mp4": patched(good, b"mdhd", 12, bytes(4)),
        "mp4_declares_years.mp4": patched(patched(good, b"mvhd", 16, YEARS), b"mdhd", 16, YEARS),
        "mp4_width_0.mp4": patched(good, b"avc1", 24, bytes(4)),
        "mp4_width_65535.mp4": patched(good, b"avc1", 24, b"\xff" * 4),
        "mp4_size_lies.mp4": patched(good, b"avc1", 24, struct.pack(">HH", 640, 480)),
        "mp4_codec_unknown.mp4": patched(good, b"stsd", 12, b"zzzz"),
        "mp4_codec_lies.mp4": patched(good, b"stsd", 12, b"mp4v"),
        "mp4_decoder_zeroed.mp4": patched(good, b"avcC", 0, bytes(24)),
        "mp4_media_elsewhere.mp4": patched(good, b"url ", 0, bytes(4)),
        "mp4_rotated.mp4": rotated(),
        "mp4_rotated_by_nonsense.mp4": patched(good, b"tkhd", 40, b"\x7f\xff\xff\xff" * 9),
        "mp4_sound_alone.mp4": sound_alone("mp4", "aac"),
        "mp4_sound_damaged.mp4": patched(sounding, b"mp4a", 16, b"\xff" * 12),
        "mp4_of_one_frame.mp4": short(seconds=0.04),
        "mov_good.mov": short("mov", "mjpeg"),
        "mov_frame_of_65500.mov": patched(short("mov", "mjpeg"), b"\xff\xc0", 3, b"\xff\xdc" * 2),
        "mov_named_mp4.mp4": short("mov", "mjpeg"),
        "heic.mp4": box(b"ftyp", b"heic" + bytes(4) + b"mif1heic") + box(b"meta", bytes(40)),
    }  # fmt: skip


def others() -> dict[str, bytes]:
    """WebM, Matroska and AVI files, and files of other formats under the names of videos."""
    webm, mkv, avi = short("webm", "libvpx"), short("matroska", "libx264", sound="aac"), short("avi", "mpeg4")
    raw = short("avi", "rawvideo")
    segment, later = webm.index(SEGMENT), webm.rindex(b"\x9d\x01\x2a") + 3
    return {
        "webm_good.webm": webm,
        "webm_empty.webm": b"",
        "webm_start_alone.webm": b"\x1a\x45\xdf\xa3",
        "webm_header_alone.webm": webm[:segment],
        "webm_cut.webm": webm[: len(webm) // 2],
        "webm_streamed_cut.webm": webm[: segment + 4] + b"\x01" + b"\xff" * 7 + webm[segment + 12 : len(webm) // 2],
        "webm_segment_lies.webm": webm[: segment + 4] + b"\x01" + b"\x7f" * 7 + webm[segment + 12 :],
        "webm_cut_in_name_of_segment.webm": webm[: segment + 2],
        "webm_doc_type_other.webm": webm.replace(b"webm", b"wxyz", 1),
        "webm_zeroed.webm": webm[: segment + 200] + bytes(len(webm) - segment - 200),
        "webm_damaged.webm": webm[:-300] + bytes(100) + webm[-200:],
        "webm_codec_unknown.webm": webm.replace(b"V_VP8", b"V_VP0", 1),
        "webm_codec_lies.webm": webm.replace(b"V_VP8", b"V_VP9", 1),
        "webm_size_0.webm": patched(webm, WIDTH, 1, b"\0"),
        "webm_frame_of_16383.webm": patched(webm, b"\x9d\x01\x2a", 0, b"\xff\x3f" * 2),
        "webm_later_frame_of_16383.webm": webm[:later] + b"\xff\x3f" * 2 + webm[later + 4 :],
        "webm_sound_alone.webm": sound_alone("webm", "libopus"),
        "mkv_good.mkv": mkv,
        "mkv_100_000_frames.mkv": repeated(NUM_FRAMES),
        "mkv_without_times.mkv": repeated(20, timed=False),
        "mkv_without_frames.mkv": repeated(0),
        "mkv_33_streams.mkv": of_many_streams(33),
        "mkv_named_mp4.mp4": mkv,
        "avi_good.avi": avi,
        "avi_empty.avi": b"",
        "avi_start_alone.avi": avi[:12],
        "avi_cut.avi": avi[: len(avi) // 2],
        "avi_size_small.avi": avi[:4] + struct.pack("<I", 100) + avi[8:],
        "avi_frames_zeroed.avi": avi[: avi.index(b"movi") + 4] + bytes(len(avi) - avi.index(b"movi") - 4),
        "avi_size_4_billion.avi": patched(avi, b"strf", 8, b"\xff\xff\xff\x7f" * 2),
        "avi_size_65535.avi": patched(avi, b"strf", 8, struct.pack("<II", 65535, 65535)),
        "avi_raw_of_65535.avi": patched(raw, b"strf", 8, struct.pack("<II", 65535, 65535)),
        "avi_raw_size_lies.avi": patched(raw, b"strf", 8, struct.pack("<II", 640, 480)),
        "avi_rate_0.avi": patched(avi, b"strh", 24, bytes(8)),
        "avi_named_webm.webm": avi,
        "playlist.mp4": b"#EXTM3U\nhttp://example.com/a.ts\n",
        "list_of_files.mkv": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "html.mp4": b"<!doctype html><title>404 Not Found</title>",
        "wav.avi": b"RIFF\x24\0\0\0WAVEfmt " + bytes(28),
        "zeros.mov": bytes(4096),
        "gif.webm": b"GIF89a" + bytes(40),
    }


def videos() -> dict[str, bytes]:
    """All of them, by the name of their file."""
    return mp4s() | others()
