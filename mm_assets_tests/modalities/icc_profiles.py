"""ICC profiles with known answers, written byte by byte: no system profile is needed.

Source: ICC.1:2010, sections 7 (header, tag table) and 10 (types of tags).
"""

import struct

from PIL import ImageCms

D50 = (0.9642, 1.0, 0.8249)
TABLE, ENTRY = 128, 12


def swapped_primaries() -> bytes:
    """sRGB as lcms2 writes it, with red's and blue's primaries exchanged: its (r, g, b) shows as sRGB's (b, g, r)."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack_from(">I", data, TABLE)
    places = [TABLE + 4 + ENTRY * number for number in range(count)]
    red, blue = (next(place for place in places if data[place : place + 4] == name) for name in (b"rXYZ", b"bXYZ"))
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data)


def linear_grey() -> bytes:
    """Grey whose values are proportional to light (gamma 1)."""
    return _profile(b"GRAY", b"XYZ ", {b"wtpt": _xyz(*D50), b"kTRC": b"curv" + struct.pack(">III", 0, 0, 0)})


def ink() -> bytes:
    """CMYK in which black ink alone makes darkness: L* = 100 (1 - K), and the other inks do nothing."""
    straight = bytes(range(256))
    table = b"".join(bytes((0 if node & 1 else 255, 128, 128)) for node in range(16))
    identity = b"".join(struct.pack(">i", 65536 if row == column else 0) for row in range(3) for column in range(3))
    lut = b"mft1" + struct.pack(">IBBBx", 0, 4, 3, 2) + identity + straight * 4 + table + straight * 3
    return _profile(b"CMYK", b"Lab ", {b"wtpt": _xyz(*D50), b"A2B0": lut}, kind=b"prtr")


def _xyz(*values: float) -> bytes:
    return b"XYZ " + struct.pack(">Iiii", 0, *(round(value * 65536) for value in values))


def _profile(space: bytes, connection: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr") -> bytes:
    place = TABLE + 4 + ENTRY * len(tags)
    entries, body = struct.pack(">I", len(tags)), b""
    for name, tag in tags.items():
        padded = tag + b"\0" * (-len(tag) % 4)
        entries += name + struct.pack(">II", place + len(body), len(tag))
        body += padded
    head = struct.pack(">I4sI4s4s4s", place + len(body), b"none", 0x02400000, kind, space, connection)
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp"
    head = head.ljust(68, b"\0") + _xyz(*D50)[8:]
    return head.ljust(TABLE, b"\0") + entries + body
