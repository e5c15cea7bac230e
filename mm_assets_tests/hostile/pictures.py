"""Damaged, lying and foreign pictures, made from real ones."""

import io
import struct
import zlib

from PIL import Image

from mm_assets_tests.drops.raw_data import huge_png

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def pattern(width: int = 24, height: int = 16) -> Image.Image:
    """A picture whose pixels all differ."""
    image = Image.new("RGB", (width, height))
    image.putdata([(x * 10 % 256, y * 15 % 256, (x * y) % 256) for y in range(height) for x in range(width)])
    return image


def encoded(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    """A picture as Pillow writes it."""
    file = io.BytesIO()
    (image or pattern()).save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes, *, crc: int | None = None) -> bytes:
    """One chunk of a PNG."""
    return (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) if crc is None else crc)
    )


def png_of(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks)


def ihdr(width: int = 8, height: int = 8, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def idat(width: int = 8, height: int = 8, channels: int = 3) -> bytes:
    return chunk(b"IDAT", zlib.compress(bytes((1 + width * channels) * height)))


IEND = chunk(b"IEND", b"")


def pngs() -> dict[str, bytes]:
    """Files that begin like a PNG."""
    good = encoded("PNG", pattern(200, 100))
    data = good.index(b"IDAT")
    return {
        "png_good.png": good,
        "png_empty.png": b"",
        "png_signature_alone.png": SIGNATURE,
        "png_cut_in_header.png": good[:20],
        "png_without_header.png": png_of(idat(), IEND),
        "png_header_short.png": png_of(chunk(b"IHDR", b"\0\0\0\1")),
        "png_header_crc.png": png_of(ihdr()[:-4] + b"abcd", idat(), IEND),
        "png_width_0.png": png_of(ihdr(0), idat(), IEND),
        "png_height_0.png": png_of(ihdr(height=0), idat(), IEND),
        "png_width_2_31.png": png_of(ihdr(1 << 31), idat(), IEND),
        "png_bomb.png": huge_png(),
        "png_declares_bomb.png": png_of(ihdr(60_000, 60_000), idat(), IEND),
        "png_depth_3.png": png_of(ihdr(depth=3), idat(), IEND),
        "png_colour_7.png": png_of(ihdr(colour=7), idat(), IEND),
        "png_no_data.png": png_of(ihdr(), IEND),
        "png_too_few_rows.png": png_of(ihdr(8, 64), idat(), IEND),
        "png_black.png": png_of(ihdr(), idat(), IEND),
        "png_interlaced.png": png_of(ihdr(1, 1, interlace=1), idat(1, 1), IEND),
        "png_too_many_rows.png": png_of(ihdr(8, 4), idat(), IEND),
        "png_data_not_zlib.png": png_of(ihdr(), chunk(b"IDAT", b"nonsense" * 9), IEND),
        "png_data_crc.png": png_of(ihdr(), idat()[:-4] + b"abcd", IEND),
        "png_cut_in_data.png": good[: data + 60],
        "png_cut_before_end.png": good[:-12],
        "png_chunk_longer_than_file.png": png_of(ihdr(), struct.pack(">I", 1 << 30) + b"IDAT" + b"x"),
        "png_palette_missing.png": png_of(ihdr(colour=3), idat(channels=1), IEND),
        "png_filter_9.png": png_of(ihdr(), chunk(b"IDAT", zlib.compress(b"\x09" * 25 * 8)), IEND),
        "png_text_bomb.png": png_of(ihdr(), chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80 << 20), 9)), idat(), IEND),
        "png_profile_bomb.png": png_of(
            ihdr(), chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(80 << 20), 9)), idat(), IEND
        ),
        "png_profile_nonsense.png": png_of(ihdr(), chunk(b"iCCP", b"k\0\0" + zlib.compress(b"no")), idat(), IEND),
        "png_bytes_behind_end.png": good + b"PK\3\4 and more",
        "png_interlaced_cut.png": png_of(ihdr(64, 64, interlace=1), idat(4, 4), IEND),
    }


def jpegs() -> dict[str, bytes]:
    """Files that begin like a JPEG."""
    good = encoded("JPEG", pattern(160, 120), quality=90)
    frame = good.index(b"\xff\xc0")
    scan = good.index(b"\xff\xda")
    progressive = encoded("JPEG", pattern(160, 120), quality=90, progressive=True)

    def sized(height: int, width: int) -> bytes:
        return good[: frame + 5] + struct.pack(">HH", height, width) + good[frame + 9 :]

    return {
        "jpg_good.jpg": good,
        "jpg_empty.jpg": b"",
        "jpg_start_alone.jpg": b"\xff\xd8\xff",
        "jpg_start_and_end.jpg": b"\xff\xd8\xff\xd9",
        "jpg_cut_in_tables.jpg": good[: frame - 20],
        "jpg_cut_in_frame.jpg": good[: frame + 6],
        "jpg_without_frame.jpg": good[:frame] + good[frame + 19 :],
        "jpg_cut_in_scan.jpg": good[: scan + 200],
        "jpg_without_scan.jpg": good[:scan] + b"\xff\xd9",
        "jpg_declares_more_rows.jpg": sized(240, 160),
        "jpg_declares_fewer_rows.jpg": sized(60, 160),
        "jpg_height_0.jpg": sized(0, 160),
        "jpg_width_0.jpg": sized(120, 0),
        "jpg_declares_65500.jpg": sized(65_500, 65_500),
        "jpg_scan_zeroed.jpg": good[: scan + 14] + bytes(len(good) - scan - 16) + b"\xff\xd9",
        "jpg_depth_3.jpg": good[: frame + 4] + b"\x03" + good[frame + 5 :],
        "jpg_components_9.jpg": good[: frame + 9] + b"\x09" + good[frame + 10 :],
        "jpg_segment_length_0.jpg": good[:frame] + b"\xff\xe1\0\0" + good[frame:],
        "jpg_progressive_cut.jpg": progressive[: len(progressive) // 3],
        "jpg_exif_nonsense.jpg": good[:2] + b"\xff\xe1\0\x10Exif\0\0MM\0*\xff\xff\xff\xff" + good[2:],
        "jpg_profile_nonsense.jpg": good[:2] + b"\xff\xe2\0\x18ICC_PROFILE\0\x01\x01nonsense" + good[2:],
        "jpg_lossless_frame.jpg": good[:frame] + b"\xff\xc3" + good[frame + 2 :],
    }


def others() -> dict[str, bytes]:
    """WebP files, and files of other formats under the names of pictures."""
    good = encoded("WEBP", pattern(64, 48), quality=80)
    exact = encoded("WEBP", pattern(64, 48), lossless=True)
    zipped = b"PK\3\4\x14\0\0\0\0\0" + bytes(40)
    return {
        "webp_good.webp": good,
        "webp_empty.webp": b"",
        "webp_start_alone.webp": good[:12],
        "webp_cut_in_header.webp": good[:22],
        "webp_cut.webp": good[: len(good) // 2],
        "webp_lossless_cut.webp": exact[: len(exact) // 2],
        "webp_size_lies.webp": good[:4] + struct.pack("<I", 1 << 31) + good[8:],
        "webp_chunk_unknown.webp": b"RIFF" + struct.pack("<I", 20) + b"WEBPNOPE" + struct.pack("<I", 8) + bytes(8),
        "webp_zeroed.webp": good[:30] + bytes(len(good) - 30),
        "webp_wave.webp": b"RIFF" + struct.pack("<I", 36) + b"WAVE" + bytes(40),
        "gif.png": encoded("GIF"),
        "bmp.png": encoded("BMP"),
        "tiff.jpg": encoded("TIFF"),
        "ico.png": b"\0\0\1\0\1\0\x10\x10" + bytes(30),
        "ppm.png": encoded("PPM"),
        "html.jpg": b"<!doctype html><title>404 Not Found</title>",
        "svg.png": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "pdf.png": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
        "zip.png": zipped,
        "avif.jpg": b"\0\0\0\x1cftypavif" + bytes(40),
        "script.jpg": b"#!/bin/sh\nrm -rf /\n",
        "pickle.png": b"cos\nsystem\n(S'true'\ntR.",
        "zeros.png": bytes(4096),
        "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99999 99999\n",
        "jpeg_named_png.png": encoded("JPEG"),
    }


def pictures() -> dict[str, bytes]:
    """All of them, by the name of their file."""
    return pngs() | jpegs() | others()
