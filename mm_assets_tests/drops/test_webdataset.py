"""Tars as ``webdataset`` and ``tar`` write them: whole numbers as labels, packed by gzip."""

import gzip
import json
import re
from pathlib import Path

import pytest
import webdataset
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mm_assets.drops.check import check_drop
from mm_assets.drops.create import create_drop
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.samples import Sample
from mm_assets.errors import StageError
from mm_assets.settings import Settings
from mm_assets.store.objects import Store
from mm_assets_tests.drops.raw_data import (
    deliver,
    freeze,
    make_folder,
    open_test_release,
    png,
    read_one_tar,
    sound,
    tar_bytes,
)

ONE = tar_bytes([("a.txt", b"a"), ("b.txt", b"b")])


def written_by_webdataset(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path)) as writer:
        writer.write({"__key__": "a", "png": png(), "cls": 3, "txt": "eins"})
        writer.write({"__key__": "b", "wav": sound(), "json": {"label": 7, "group": 12, "id": 3}})


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz"])
def test_what_webdataset_writes_is_read_plain_and_packed(
    store: Store, settings: Settings, tmp_path: Path, name: str
) -> None:
    written_by_webdataset(tmp_path / "d" / name)
    deliver(store, tmp_path / "d")
    report = check_drop(tmp_path / "d")
    assert (report.problems, report.num_samples) == ((), 2)
    manifest = freeze(store, open_test_release(store, ("src", "d1")), "0000", settings).manifest
    assert manifest.stats["modalities"] == {"text": 1, "image": 1, "audio": 1, "video": 0}
    made = read_one_tar((tmp_path / "d" / name).read_bytes(), tmp_path, name=name)
    assert [(sample.key, sample.label, sample.group) for sample in made if isinstance(sample, Sample)] == [
        ("a", "3", None), ("b", "7", "12"),
    ]  # fmt: skip


def test_plain_and_packed_tars_make_the_same_samples(tmp_path: Path) -> None:
    plain = read_one_tar(ONE, tmp_path)
    assert read_one_tar(gzip.compress(ONE), tmp_path, name="a.tgz") == [
        made.__class__(**{**{slot: getattr(made, slot) for slot in made.__slots__}, "object": "a.tgz"})
        for made in plain
    ]


PACKED = gzip.compress(ONE)
BAD = {
    "a second member": (PACKED + PACKED, "data behind the end of the gzip member"),
    "bytes behind the end": (PACKED + b"x", "data behind the end of the gzip member"),
    "cut": (PACKED[:-4], "the gzip member has no end"),
    "a wrong checksum": (PACKED[:-8] + bytes(4) + PACKED[-4:], "gzip: "),
    "no gzip": (ONE, "gzip: "),
    "bytes behind the end of the tar in it": (gzip.compress(ONE + b"more"), "data behind its end marker"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_packed_tar_that_is_not_one_whole_member_fails(name: str, tmp_path: Path) -> None:
    data, message = BAD[name]
    with pytest.raises(StageError, match=rf"^a.tar.gz: the tar cannot be read to its end: .*{re.escape(message)}"):
        read_one_tar(data, tmp_path, name="a.tar.gz")


def test_a_small_file_that_unpacks_to_much_fails_at_the_ceiling(tmp_path: Path) -> None:
    bomb = gzip.compress(ONE + bytes(50_000_000))
    assert len(bomb) < 60_000
    config = SnapshotConfig(max_unpacked_bytes=1 << 20)
    with pytest.raises(StageError, match=r"^a\.tgz: unpacks to more than 1048576 bytes: expected at most that many"):
        read_one_tar(bomb, tmp_path, config, name="a.tgz")


@pytest.mark.parametrize(("value", "kind"), [(3.5, "float"), (True, "bool"), (["a"], "list")])
def test_a_label_that_is_no_whole_number_is_refused(tmp_path: Path, value: object, kind: str) -> None:
    data = tar_bytes([("a.txt", b"a"), ("a.json", json.dumps({"label": value}).encode())])
    (made,) = read_one_tar(data, tmp_path)
    assert getattr(made, "detail", None) == (
        f"json member: label is a {kind}; a string, a whole number or null is expected"
    )


def test_check_names_a_packed_tar_that_is_damaged(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", {"a.tgz": PACKED[:-4], "b.tgz": gzip.compress(tar_bytes([("c.txt", b"c")]))})
    create_drop(folder, "src", "d1")
    report = check_drop(folder)
    assert [(problem.file, problem.is_fatal) for problem in report.problems] == [("a.tgz", True)]
    assert report.num_samples == 3


@pytest.mark.property
@hypothesis_settings(max_examples=100, deadline=None)
@given(place=st.integers(0, len(PACKED) - 1), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_packed_tar_is_read_as_it_was_or_fails(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int, cut: bool
) -> None:
    data = PACKED[:place] if cut else PACKED[:place] + bytes([value]) + PACKED[place + 1 :]
    try:
        made = read_one_tar(data, tmp_path_factory.mktemp("gz"), name="a.tgz")
    except StageError as error:
        assert str(error).startswith("a.tgz: ")
        return
    # The header of a gzip member has bytes that decide nothing: its time and system.
    assert [sample.key for sample in made] == ["a", "b"]
