"""Seeded damage to files that keeps enough of their structure for a reader to go on."""

import gzip
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from mm_assets_tests.hostile.archives import BLOCK, with_checksum

MAX_BYTES = 1 << 17
SIZES = {"B": 1, "H": 2, "I": 4, "Q": 8}
#: Numbers at which readers go wrong, by the number of bytes.
BOUNDARIES = {
    kind: [0, 1, 2, (1 << 8 * size - 1) - 1, 1 << 8 * size - 1, (1 << 8 * size) - 1, (1 << 8 * size) - 2]
    for kind, size in SIZES.items()
}
TOKENS = (
    b"\0", b"\n", b"\r", b'"', b"'", b",", b"{", b"}", b"[", b"]", b":", b"- ", b"&a ", b"*a", b"!!int ", b"\\ud800",
    b"../", b"s3://b/k", b"null", b"NaN", b"1e999", b"-1", b"9" * 30, b"true", b"\xff", b"\xef\xbb\xbf",
    b"\xe2\x80\xae", b"id", b"text", b"image", b"label", b"\x1f\x8b", b"RIFF", b"IDAT", b"PAR1", b"data", b"fmt ",
    b"OggS", b"2026-13-45", b"%", b"*", b"?", b"(", b")", b";", b"--", b"/*", b"now()", b"|", b">", b"\t", b"#", b"~",
    b"0x", b"1:2:3", b"<<: ",
)  # fmt: skip
Values = dict[str, Any]


def mutate(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """``data`` with one to six changes; ``others`` lend it pieces."""
    made = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        random.choice(CHANGES)(random, made, others)
        del made[MAX_BYTES:]
    return bytes(made)


def _place(random: Random, data: bytearray) -> int:
    """Headers are where most is decided."""
    end = len(data) if random.random() < 0.6 else min(len(data), 600)
    return random.randrange(end + 1)


def _flip(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[min(_place(random, data), len(data) - 1)] ^= 1 << random.randrange(8)


def _overwrite(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    kind = random.choice("BHIQ")
    place = _place(random, data)
    value = struct.pack(random.choice("<>") + kind, random.choice(BOUNDARIES[kind]))
    data[place : place + len(value)] = value


def _add(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    """A number becomes a little larger or smaller."""
    kind = random.choice("BHI")
    order, size = random.choice("<>") + kind, SIZES[kind]
    place = _place(random, data)
    if place + size <= len(data):
        (value,) = struct.unpack_from(order, data, place)
        struct.pack_into(order, data, place, (value + random.choice((-16, -2, -1, 1, 2, 16))) % (1 << 8 * size))


def _insert(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    place = _place(random, data)
    data[place:place] = random.randbytes(random.choice((1, 2, 8, 64)))


def _say(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    place = _place(random, data)
    token = random.choice(TOKENS)
    data[place : place + random.choice((0, len(token)))] = token * random.choice((1, 1, 1, 40))


def _remove(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    place = _place(random, data)
    del data[place : place + random.choice((1, 2, 4, 16, 256, 4096))]


def _repeat(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    place = _place(random, data)
    piece = data[place : place + random.choice((1, 8, 64, 512, 2048))]
    data[place:place] = piece * random.choice((1, 1, 8))


def _cut(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[_place(random, data) :]


def _splice(random: Random, data: bytearray, others: Sequence[bytes]) -> None:
    other = random.choice(others)
    first = random.randrange(len(other) + 1)
    place = _place(random, data)
    size = random.choice((8, 64, 512, 8192))
    data[place : place + random.choice((0, size))] = other[first : first + size]


def _fill(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    place, size = _place(random, data), random.choice((2, 16, 200))
    data[place : place + size] = bytes([random.choice((0, 0x20, 0x39, 0x7F, 0xFF))]) * size


Change = Callable[[Random, bytearray, Sequence[bytes]], None]
CHANGES: tuple[Change, ...] = (_flip, _overwrite, _add, _insert, _say, _remove, _repeat, _cut, _splice, _fill)


def mutate_png(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Damage whose chunks mostly have right checksums."""
    made = bytearray(mutate(random, data, others))
    place = 8
    while random.random() < 0.98 and place + 12 <= len(made):
        size = struct.unpack_from(">I", made, place)[0]
        end = place + 8 + size
        if end + 4 > len(made):
            break
        struct.pack_into(">I", made, end, zlib.crc32(bytes(made[place + 4 : end])))
        place = end + 4
    return bytes(made)


def mutate_tar(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Damage whose headers mostly have right checksums."""
    made = bytearray(mutate(random, data, others))
    for place in range(0, len(made) - BLOCK + 1, BLOCK):
        if made[place + 257 : place + 262] == b"ustar" and random.random() < 0.95:
            block = made[place : place + BLOCK]
            with_checksum(block)
            made[place : place + BLOCK] = block
    return bytes(made)


def mutate_gzip(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Damage to what is packed, or to the packed."""
    if random.random() < 0.5:
        return mutate(random, data, others)
    try:
        inside = gzip.decompress(data)[:MAX_BYTES]
    except (OSError, EOFError, zlib.error):
        inside = data
    return gzip.compress(mutate_tar(random, inside, [inside]), 1, mtime=0)


def mutate_json(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Damage to the bytes, or to the values of a document or of one of its lines."""
    if random.random() < 0.3:
        return mutate(random, data, others)
    lines = data.split(b"\n") if random.random() < 0.8 else [data]
    number = random.randrange(len(lines))
    try:
        document = json.loads(lines[number])
    except (ValueError, RecursionError):
        return mutate(random, data, others)
    for _ in range(random.choice((1, 1, 2, 4))):
        document = _changed(random, document)
    lines[number] = json.dumps(document).encode()
    return b"\n".join(lines)[:MAX_BYTES]


def _changed(random: Random, value: Any) -> Any:
    """``value`` with one change somewhere in it."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        name = random.choice(sorted(value))
        made: Values = dict(value)
        kind = random.random()
        if kind < 0.15:
            del made[name]
        elif kind < 0.3:
            made[random.choice((name.upper(), name + "s", name[:-1], "x", "", "\u202e"))] = made.pop(name)
        else:
            made[name] = _changed(random, made[name])
        return made
    if isinstance(value, list) and value and random.random() < 0.8:
        place = random.randrange(len(value))
        kind = random.random()
        changed = [] if kind < 0.2 else [value[place]] * 2 if kind < 0.4 else [_changed(random, value[place])]
        return [*value[:place], *changed, *value[place + 1 :]]
    return random.choice(
        [None, True, 0, -1, 1.5, 1e308, float("nan"), 1 << 70, "", "x", "\ud800", "a\0b", "../x", "s3://b/k", [], {},
         [value], {"a": value}, "x" * 600, str(value)[:50], {"bytes": None, "path": "x"}, "sha256:" + "0" * 64]
    )  # fmt: skip
