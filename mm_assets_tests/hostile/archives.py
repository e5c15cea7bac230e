"""Damaged and hostile tars, plain and packed by gzip, and the descriptions and names of their members."""

import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Callable

from mm_assets_tests.drops.raw_data import link, png, tar_bytes

BLOCK = tarfile.BLOCKSIZE
GOOD = [("good1.txt", b"one"), ("good2.txt", b"two")]
Edit = Callable[[bytearray], None]


def header(name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, edit: Edit | None = None) -> bytes:
    """A member of a tar whose header ``edit`` changes before its checksum is made."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    if edit is not None:
        edit(block)
        with_checksum(block)
    return bytes(block) + data + bytes(-len(data) % BLOCK)


def with_checksum(block: bytearray) -> None:
    """Puts the checksum of a header right."""
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block[:BLOCK]):06o}\0 ".encode()


def at(place: int, value: bytes) -> Edit:
    """Writes ``value`` into a header."""

    def edit(block: bytearray) -> None:
        block[place : place + len(value)] = value

    return edit


def tar_of(*members: bytes) -> bytes:
    """Members and an end marker."""
    return b"".join(members) + bytes(2 * BLOCK)


def pax(records: dict[str, str], *, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """An extended header."""
    lines = b""
    for name, value in records.items():
        text = f" {name}={value}\n".encode()
        size = len(text) + 1
        while len(str(size)) + len(text) != size:
            size += 1
        lines += str(size).encode() + text
    return header("pax", lines, kind=kind)


def damaged() -> dict[str, bytes]:
    """Tars that cannot be read to their end."""
    good = tar_bytes(GOOD)
    first = header("good1.txt", b"one")
    return {
        "empty.tar": b"",
        "cut_in_header.tar": good[:700],
        "cut_in_data.tar": header("a.txt", b"x" * 5000)[:3000],
        "cut_before_end.tar": first + header("good2.txt", b"two"),
        "half_an_end.tar": first + bytes(BLOCK),
        "concatenated.tar": tar_of(first) + tar_of(header("more.txt", b"more")),
        "bytes_behind_end.tar": tar_of(first) + b"PK\3\4",
        "checksum.tar": first
        + bytes([*header("b.txt", b"b")][:10])
        + b"\xff"
        + header("b.txt", b"b")[11:]
        + bytes(1024),
        "second_header_zeroed.tar": first + bytes(BLOCK) + header("b.txt", b"b") + bytes(2 * BLOCK),
        "size_negative.tar": tar_of(first, header("b.txt", edit=at(124, b"\xff" * 12))),
        "size_huge.tar": tar_of(first, header("b.txt", edit=at(124, b"77777777777\0"))),
        "size_2_70.tar": tar_of(first, header("b.txt", edit=at(124, b"\x80\0\0\x40" + bytes(8)))),
        "size_not_octal.tar": tar_of(first, header("b.txt", edit=at(124, b"nonsense!!!\0"))),
        "mode_not_octal.tar": tar_of(first, header("b.txt", edit=at(100, b"zzzzzzz\0"))),
        "folder_of_8_gib.tar": tar_of(first, header("a/", kind=tarfile.DIRTYPE, edit=at(124, b"77777777777\0"))),
        "link_of_2_70.tar": tar_of(first, header("b", kind=b"Z", edit=at(124, b"\x80\0\0\x40" + bytes(8)))),
        "zip.tar": b"PK\3\4" + bytes(600),
        "gzip_named_tar.tar": gzip.compress(good, mtime=0),
        "html.tar": b"<!doctype html><title>404</title>" + b" " * 600,
        "extended_size_lies.tar": tar_of(pax({"size": "999999"}), header("b.txt", b"b")),
        "extended_size_negative.tar": tar_of(pax({"size": "-1"}), header("b.txt", b"b")),
        "extended_nonsense.tar": tar_of(header("pax", b"nonsense\n", kind=tarfile.XHDTYPE), header("b.txt", b"b")),
        "extended_length_lies.tar": tar_of(
            first, header("pax", b"99 path=x\n", kind=tarfile.XHDTYPE), header("b.txt", b"b")
        ),
        "extended_length_0.tar": tar_of(header("pax", b"0 path=x\n", kind=tarfile.XHDTYPE), header("b.txt", b"b")),
        "extended_2_mib.tar": tar_of(pax({"comment": "x" * (2 << 20)}), header("b.txt", b"b")),
        "extended_in_a_row.tar": tar_of(*[pax({"comment": str(n)}) for n in range(40)], header("b.txt", b"b")),
        "extended_alone.tar": tar_of(first, pax({"path": "x.txt"})),
        "global_2_mib.tar": tar_of(
            *[pax({f"c{n}": "x" * (300 << 10)}, kind=tarfile.XGLTYPE) for n in range(4)], header("b.txt", b"b")
        ),
        "long_name_endless.tar": tar_of(header("././@LongLink", edit=at(124, b"77777777777\0"), kind=b"L"), first),
        "long_name_alone.tar": tar_of(header("././@LongLink", b"x" * 200, kind=b"L")),
        "sparse_map_endless.tar": tar_of(header("b.txt", kind=b"S", edit=at(482, b"\1"))),
        "sparse_pax_map.tar": tar_of(
            pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "999999999"}),
            header("b.txt", b"1\n0\n9\n"),
        ),
        "number_not_a_number.tar": tar_of(pax({"mtime": "soon", "uid": "x"}), header("b.txt", b"b")),
    }


def members() -> dict[str, bytes]:
    """Tars with members that are refused, or not, beside good ones."""

    def beside(*extra: tuple[str, bytes] | tarfile.TarInfo) -> bytes:
        return tar_bytes([GOOD[0], *extra, GOOD[1]])

    return {
        "nothing.tar": bytes(1024),
        "folders_alone.tar": tar_bytes([link("a/", "", tarfile.DIRTYPE)]),
        "absolute.tar": beside(("/etc/bad.txt", b"x")),
        "parent.tar": beside(("../bad.txt", b"x")),
        "parent_inside.tar": beside(("a/../../bad.txt", b"x")),
        "backslash.tar": beside(("\\\\server\\bad.txt", b"x")),
        "extended_parent.tar": tar_of(header("good1.txt", b"one"), pax({"path": "../bad.txt"}), header("b.txt", b"b")),
        "symlink.tar": beside(link("bad.txt", "/etc/passwd")),
        "hard_link.tar": beside(link("bad.txt", "good1.txt", tarfile.LNKTYPE)),
        "hard_link_forward.tar": beside(link("bad.txt", "good2.txt", tarfile.LNKTYPE)),
        "fifo.tar": beside(link("bad.txt", "", tarfile.FIFOTYPE)),
        "device.tar": beside(link("bad.txt", "", tarfile.CHRTYPE)),
        "block_device.tar": beside(link("bad.txt", "", tarfile.BLKTYPE)),
        "kind_unknown.tar": tar_of(header("good1.txt", b"one"), header("bad.txt", b"x", kind=b"Z")),
        "no_extension.tar": beside(("README", b"x")),
        "dot_at_end.tar": beside(("bad.", b"x")),
        "repeated.tar": beside(("good1.txt", b"again")),
        "repeated_otherwise.tar": beside(("bad.txt", b"a"), ("bad.txt", b"b")),
        "two_pictures.tar": beside(("bad.png", png()), ("bad.webp", png())),
        "unknown_alone.tar": beside(("bad.pkl", b"cos\nsystem\n(S'true'\ntR.")),
        "name_not_utf8.tar": tar_of(header("good1.txt", b"one"), header("x", b"x", edit=at(0, b"caf\xe9.txt"))),
        "name_of_nuls.tar": tar_of(header("good1.txt", b"one"), header("x", b"x", edit=at(0, bytes(100)))),
        "extended_name_nul.tar": tar_of(header("good1.txt", b"one"), pax({"path": "a\0b.txt"}), header("b.txt", b"b")),
        "extended_sparse.tar": tar_of(
            header("good1.txt", b"one"),
            pax({"GNU.sparse.map": "0,1", "GNU.sparse.size": "99", "GNU.sparse.name": "bad.txt"}),
            header("b.txt", b"b"),
        ),
        "sparse.tar": tar_of(
            header("good1.txt", b"one"),
            header("bad.txt", kind=b"S", edit=at(386, b"00000000000\0" * 8 + b"\0" + b"00000000000\0")),
        ),
        "text_too_large.tar": beside(("bad.txt", b"x" * ((1 << 20) + 1))),
        "members_1024.tar": beside(("bad.txt", b"x"), *[(f"bad.u{n}", b"") for n in range(1023)]),
        "members_1025.tar": beside(("bad.txt", b"x"), *[(f"bad.u{n}", b"") for n in range(1024)]),
        "parts_257.tar": beside(*[(f"bad.{n}.txt", b"x") for n in range(257)]),
        "part_numbers.tar": beside(*[(f"fine.{n}.txt", b"x") for n in ("0", "00", "999", "1000", "-1")]),
        "part_twice.tar": beside(("bad.1.txt", b"x"), ("bad.01.txt", b"x")),
        "hidden.tar": beside((".bad.txt", b"x")),
        "capital_extension.tar": beside(("fine.TXT", b"x")),
        "long_name.tar": beside((f"{'k' * 600}.txt", b"x")),
    }


def zipped() -> dict[str, bytes]:
    """Tars packed by gzip."""
    good = gzip.compress(tar_bytes(GOOD), mtime=0)
    return {
        "good.tar.gz": good,
        "empty.tar.gz": b"",
        "not_gzip.tar.gz": tar_bytes(GOOD),
        "cut.tar.gz": good[: len(good) // 2],
        "cut_in_checksum.tgz": good[:-5],
        "checksum.tar.gz": good[:-8] + b"abcd" + good[-4:],
        "size.tar.gz": good[:-4] + b"abcd",
        "two_members.tar.gz": good + good,
        "bytes_behind_end.tgz": good + b"more",
        "zeros_behind_end.tgz": good + bytes(100),
        "twice.tar.gz": gzip.compress(good, mtime=0),
        "no_tar_inside.tar.gz": gzip.compress(b"hello" * 300, mtime=0),
        "zlib_stream.tar.gz": zlib.compress(tar_bytes(GOOD)),
        "flags_reserved.tar.gz": good[:3] + b"\xe0" + good[4:],
        "tar_cut_inside.tar.gz": gzip.compress(tar_bytes(GOOD)[:700], mtime=0),
        "bomb_of_zeros.tar.gz": gzip.compress(bytes(40 << 20), mtime=0),
    }


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


def descriptions() -> dict[str, bytes]:
    """JSON and class members beside a text."""
    return {
        "good.json": b'{"label": "cat", "group": 7, "colour": {"r": [1, 2.5, null]}}',
        "empty.json": b"",
        "not_json.json": b"label: cat",
        "cut.json": b'{"label": "c',
        "list.json": b'[{"label": "cat"}]',
        "null.json": b"null",
        "number.json": b"3",
        "not_utf8.json": b'{"label": "caf\xe9"}',
        "utf16.json": '{"label": "cat"}'.encode("utf-16"),
        "byte_order_mark.json": b'\xef\xbb\xbf{"label": "cat"}',
        "nested_64.json": nested(64),
        "nested_65.json": nested(65),
        "nested_500.json": nested(500),
        "nested_100000.json": nested(40_000),
        "lists_100000.json": b'{"a":' + b"[" * 100_000,
        "name_twice.json": b'{"label": "a", "label": "b"}',
        "name_twice_inside.json": b'{"a": {"b": 1, "b": 2}}',
        "number_of_5000_digits.json": b'{"n": ' + b"9" * 5000 + b"}",
        "number_1e999.json": b'{"n": 1e999}',
        "number_nan.json": b'{"n": NaN}',
        "number_2_60.json": b'{"n": 1152921504606846976}',
        "lone_surrogate.json": b'{"n": "\\ud800"}',
        "lone_surrogate_name.json": b'{"\\udfff": 1}',
        "lone_surrogate_label.json": b'{"label": "\\ud800"}',
        "nul_in_label.json": b'{"label": "a\\u0000b"}',
        "label_float.json": b'{"label": 3.5}',
        "label_true.json": b'{"label": true}',
        "label_list.json": b'{"label": ["cat"]}',
        "label_misspelt.json": b'{"lable": "cat"}',
        "label_capital.json": b'{"Label": "cat"}',
        "label_too_long.json": json.dumps({"label": "x" * 1025}).encode(),
        "label_empty.json": b'{"label": ""}',
        "group_number_of_300_digits.json": b'{"group": ' + b"9" * 300 + b"}",
        "language_number.json": b'{"language": 3}',
        "too_large.json": json.dumps({"n": "x" * (300 << 10)}).encode(),
        "too_large_escaped.json": json.dumps({"n": "\u0001" * (50 << 10)}).encode(),
        "many_names.json": json.dumps({f"n{n}": n for n in range(20_000)}).encode(),
        "comment.json": b'{"label": "cat"} // a comment',
        "two_documents.json": b'{"label": "a"}{"label": "b"}',
        "single_quotes.json": b"{'label': 'cat'}",
        "class_good.cls": b"cat\n",
        "class_not_utf8.cls": b"caf\xe9",
        "class_too_long.cls": b"x" * 1025,
        "class_too_large.cls": b"x" * (300 << 10),
        "class_empty.cls": b"",
        "class_nul.cls": b"a\0b",
    }


def names() -> dict[str, str]:
    """Ids of samples, by what is wrong with them."""
    return {
        "emoji": "👩‍🚀",
        "region_flag": "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "hidden_tags": "a\U000e0061\U000e0062",
        "control": "a\x07b",
        "line_break": "a\nb",
        "reversed": "a\u202eb",
        "zero_width_space": "a\u200bb",
        "line_separator": "a\u2028b",
        "private_use": "a\ue000b",
        "noncharacter": "a\ufffeb",
        "byte_order_mark": "\ufeffa",
        "soft_hyphen": "a\u00adb",
        "bytes_513": "k" * 513,
        "bytes_512": "k" * 512,
        "bytes_516": "€" * 172,
    }


def named(sample_id: str) -> bytes:
    """A tar with a good text, and one of that id."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("good", sample_id):
            info = tarfile.TarInfo(f"{name}.txt")
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
    return file.getvalue()


def archives() -> dict[str, bytes]:
    """All tars, by the name of their file."""
    ids = {f"id_{name}.tar": named(sample_id) for name, sample_id in names().items()}
    return damaged() | members() | zipped() | ids
