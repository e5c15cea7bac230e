"""A tar that cannot be read to its end fails its shard; members of unknown extension are counted."""

import re
import tarfile
from pathlib import Path

import pytest

from mm_assets.drops.check import check_drop
from mm_assets.drops.create import create_drop
from mm_assets.drops.samples import Sample
from mm_assets.errors import StageError
from mm_assets.settings import Settings
from mm_assets.store.objects import Store
from mm_assets_tests.drops.raw_data import (
    deliver,
    freeze,
    make_folder,
    open_test_release,
    read_one_tar,
    snapshot_findings,
    tar_bytes,
)

ONE = tar_bytes([("a.txt", b"a"), ("b.txt", b"b"), ("c.txt", b"c")])


def many_with_a_damaged_header() -> bytes:
    data = bytearray(tar_bytes([(f"s{number:04d}.txt", b"text") for number in range(2000)]))
    data[100 * 1024 : 100 * 1024 + 10] = b"\xff" * 10
    return bytes(data)


def without_end() -> bytes:
    return ONE[: 3 * 1024]


def pax_headers(count: int, kind: bytes, size_bytes: int = 20) -> bytes:
    """Extended headers in front of one member."""
    headers = b""
    for number in range(count):
        body = f" k{number:04d}={'v' * size_bytes}\n".encode()
        length = len(body) + len(str(len(body)))
        length = len(body) + len(str(length))
        record = str(length).encode() + body
        info = tarfile.TarInfo("header")
        info.type, info.size = kind, len(record)
        headers += info.tobuf(tarfile.USTAR_FORMAT) + record + bytes(-len(record) % tarfile.BLOCKSIZE)
    return headers + ONE


def extended(record: bytes) -> bytes:
    """An extended header of these bytes in front of one member."""
    info = tarfile.TarInfo("header")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    return info.tobuf(tarfile.USTAR_FORMAT) + record + bytes(-len(record) % tarfile.BLOCKSIZE) + ONE


def sparse_member() -> bytes:
    """A GNU sparse file whose map goes on in further blocks."""
    header = bytearray(tarfile.TarInfo("a.txt").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[482] = 1
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + bytes(tarfile.BLOCKSIZE) + ONE


DAMAGED = {
    "one damaged header of 2,000": (many_with_a_damaged_header(), "byte 102400 on, last member s0099.txt: "),
    "two tars in a row": (ONE + ONE, f"data behind its end marker at byte {len(ONE)}, as where tars were concatenated"),
    "a few bytes behind the end": (ONE + b"more", f"data behind its end marker at byte {len(ONE)}"),
    "no end marker": (without_end(), "byte 3072 on, last member c.txt: ends without an end marker"),
    "cut inside of a member": (ONE[: 1024 + 512], "byte 1024 on, last member b.txt: "),
    "cut inside of a header": (ONE[: 2048 + 100], "byte 2048 on, last member b.txt: "),
    "headers in a row": (pax_headers(17, tarfile.XHDTYPE), "more than 16 extended headers in a row"),
    "a thousand global headers": (pax_headers(1000, tarfile.XGLTYPE), "more than 16 extended headers in a row"),
    "global headers without end": (pax_headers(2, tarfile.XGLTYPE, 700_000), "extended header of 7"),
    "an extended header without records": (extended(b"nonsense\n"), "extended header is malformed at its byte 0"),
    "an extended header behind a record": (extended(b"10 path=x\nrest"), "extended header is malformed at its byte 10"),
    "a record that is longer than it": (extended(b"99 path=x\n"), "extended header is malformed at its byte 0"),
    "a record without its line end": (extended(b"9 path=xx"), "extended header is malformed at its byte 0"),
    "a record without a name": (extended(b"5 =x\n"), "extended header is malformed at its byte 0"),
    "a size that is no number": (extended(b"11 size=1x\n"), "extended header is malformed at its byte 0"),
    "a sparse map of any length": (sparse_member(), "sparse member with a map of any length"),
    "no tar": (b"hello" * 400, "from its start: "),
    "nothing": (b"", "from its start: "),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_tar_that_cannot_be_read_to_its_end_is_an_error_with_its_place(name: str, tmp_path: Path) -> None:
    data, place = DAMAGED[name]
    with pytest.raises(StageError, match=f"^a.tar: the tar cannot be read to its end: .*{re.escape(place)}"):
        read_one_tar(data, tmp_path)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_few_extended_headers_are_read(kind: bytes, tmp_path: Path) -> None:
    assert [made.key for made in read_one_tar(pax_headers(16, kind), tmp_path)] == ["a", "b", "c"]


def test_an_extended_header_may_end_in_zeros(tmp_path: Path) -> None:
    assert [made.key for made in read_one_tar(extended(b"14 path=z.txt\n\0\0"), tmp_path)] == ["b", "c", "z"]


def test_zeros_behind_the_end_marker_are_no_data(tmp_path: Path) -> None:
    assert [made.key for made in read_one_tar(ONE + bytes(100_000), tmp_path)] == ["a", "b", "c"]


def test_a_damaged_tar_fails_its_shard_and_the_check_of_the_drop(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "d", {"a.tar": many_with_a_damaged_header(), "b.tar": ONE})
    deliver(store, folder)
    spec = open_test_release(store, ("src", "d1"), num_shards=2)
    with pytest.raises(StageError, match=r"a\.tar: .* nothing of the tar is used: deliver it again as a new drop\.$"):
        freeze(store, spec, "0000", settings)
    assert freeze(store, spec, "0001", settings).manifest.stats["rows_out"] == 3
    report = check_drop(folder)
    assert [(problem.file, problem.is_fatal) for problem in report.problems] == [("a.tar", True)]
    assert "from byte 102400" in report.problems[0].message


def test_members_of_unknown_extension_are_counted_in_check_and_shard(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    members = [("a.txt", b"a"), ("a.gif", b"GIF89a"), ("b.txt", b"b"), ("b.gif", b"GIF89a"), ("b.m4a", b"x")]
    folder = make_folder(tmp_path / "d", {"a.tar": tar_bytes([*members, ("c.txt", b"c"), ("c.0.gif", b"x")])})
    deliver(store, folder)
    manifest = freeze(store, open_test_release(store, ("src", "d1")), "0000", settings).manifest
    assert manifest.stats["unknown_members"] == {"gif": 3, "m4a": 1}
    details = [finding.detail for finding in snapshot_findings(store, manifest)]
    assert any("4 members have an unknown extension (gif 3, m4a 1): their digests" in text for text in details)
    warnings = [str(problem) for problem in check_drop(folder).warnings if problem.file == "a.tar"]
    assert [warning[:50] for warning in warnings] == [
        "a.tar a.gif: 3 members of unknown extension gif, t",
        "a.tar b.m4a: 1 members of unknown extension m4a, t",
    ]
    assert "no stage reads their bytes. Extensions that are read: avi, flac, jpeg, jpg" in warnings[0]


def test_extensions_that_are_all_different_are_counted_together(tmp_path: Path) -> None:
    members = [(f"a.x{number}", b"") for number in range(150)]
    folder = make_folder(tmp_path / "d", {"a.tar": tar_bytes([("a.txt", b"a"), *members])})
    create_drop(folder, "src", "d1")
    warnings = [problem.message for problem in check_drop(folder).warnings if problem.file == "a.tar"]
    assert len(warnings) == 101
    assert any("50 members of unknown extension other extensions" in message for message in warnings)


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_tars_of_every_format_are_read_to_their_end(kind: int, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=kind) as archive:
        for name in ("a.txt", "b" * 90 + ".txt"):
            (tmp_path / name).write_bytes(b"text")
            archive.add(tmp_path / name, name)
    made = read_one_tar(path.read_bytes(), tmp_path)
    assert [isinstance(item, Sample) for item in made] == [True, True]
