"""Every bad input lands in the dead letters with its reason, and nothing else is lost."""

import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from mm_assets.drops.check import check_drop
from mm_assets.drops.collection import Collection
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.record import DropObject
from mm_assets.drops.samples import Rejection, Sample, VerifiedReader
from mm_assets.drops.tar import read_tar
from mm_assets.identity.canonical import digest_bytes, digest_hex
from mm_assets.settings import Settings
from mm_assets.store.objects import Store
from mm_assets.store.tables import read_parquet
from mm_assets_tests.drops.raw_data import (
    deliver,
    drop_of,
    freeze,
    huge_png,
    jsonl,
    link,
    lying_wav,
    make_folder,
    open_test_release,
    png,
    sound,
    tar_bytes,
)

GOOD = [("good1.txt", b"one"), ("good1.png", png()), ("good2.wav", sound())]


def tables(
    store: Store, folder: Path, settings: Settings, tmp_path: Path, config: SnapshotConfig | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Samples and dead letters of a one-shard release over the drop in ``folder``."""
    deliver(store, folder)
    committed = freeze(store, open_test_release(store, ("src", "d1"), config=config), "0000", settings)
    rows = [
        read_parquet(store.fetch(committed.manifest.output(name).digest, tmp_path / "o")).to_pylist()
        for name in ("samples.parquet", "dead_letters.parquet")
    ]
    return rows[0], rows[1]


@pytest.mark.parametrize(
    ("members", "reason", "sample_id", "modality"),
    [
        ([("bad.wav", lying_wav())], "header_lies", "bad", "audio"),
        ([("bad.txt", b"caf\xe9")], "text_not_utf8", "bad", "text"),
        ([("bad.png", b""), ("bad.txt", b"fine")], "empty_file", "bad", "image"),
        ([("bad.txt", b"")], "empty_file", "bad", "text"),
        ([("good1.txt", b"again")], "duplicate_id", "good1", "text"),
        ([("../../etc/bad.txt", b"out")], "unsafe_path", None, None),
        ([("/etc/bad.txt", b"out")], "unsafe_path", None, None),
        ([link("bad.txt", "/etc/passwd")], "not_a_file", "bad", "text"),
        ([link("bad.txt", "good1.txt", tarfile.LNKTYPE), ("bad.png", png())], "not_a_file", "bad", "text"),
        ([link("bad.txt", "", tarfile.FIFOTYPE)], "not_a_file", "bad", "text"),
        ([("bad.png", b"GIF89a" + bytes(30))], "unsupported_format", "bad", "image"),
        ([("bad.png", png()[:20])], "bad_header", "bad", "image"),
        ([("bad.flac", b"fLaC" + bytes(60))], "bad_header", "bad", "audio"),
        ([("bad.json", b'{"lable": "cat"}'), ("bad.txt", b"x")], "bad_metadata", "bad", None),
        ([("bad.json", b'{"label": 3.5}'), ("bad.txt", b"x")], "bad_metadata", "bad", None),
        ([("bad.json", b"[1]"), ("bad.txt", b"x")], "bad_metadata", "bad", None),
        ([("bad.json", b'{"label": "cat"}')], "no_modality", "bad", None),
        ([("bad.pkl", b"cos\nsystem\n(S'true'\ntR.")], "no_modality", "bad", None),
        ([("bad.jpg", png()), ("bad.png", png())], "ambiguous_modality", "bad", "image"),
        ([("README", b"x")], "no_extension", None, None),
        ([(f"{'k' * 600}.txt", b"x")], "bad_id", "k" * 600, None),
    ],
)
def test_a_bad_member_becomes_one_dead_letter_and_the_others_go_through(
    store: Store,
    settings: Settings,
    tmp_path: Path,
    members: list[Any],
    reason: str,
    sample_id: str | None,
    modality: str | None,
) -> None:
    folder = make_folder(tmp_path / "drop", {"a.tar": tar_bytes([*GOOD, *members, ("later.txt", b"later")])})
    samples, letters = tables(store, folder, settings, tmp_path)
    assert [row["key"] for row in samples] == ["good1", "good2", "later"]
    assert [letter["reason"] for letter in letters] == [reason]
    assert letters[0]["id"] == (sample_id and f"src/d1/{sample_id}")
    assert letters[0]["modality"] == modality
    assert letters[0]["object"] == "raw/src/d1/a.tar"
    assert letters[0]["stage"] == "snapshot"
    report = check_drop(folder)
    assert [problem.file for problem in report.problems] == ["a.tar"]
    assert f"({reason})" in report.problems[0].message
    assert report.num_samples == 3


def test_a_truncated_png_passes_the_snapshot_byte_for_byte(store: Store, settings: Settings, tmp_path: Path) -> None:
    cut = png(64, 64)[:-30]
    folder = make_folder(tmp_path / "drop", {"a.tar": tar_bytes([("cut.png", cut)])})
    samples, letters = tables(store, folder, settings, tmp_path)
    assert letters == []
    assert samples[0]["image_size_bytes"] == len(cut)
    assert samples[0]["image_format"] == "png"


def test_a_picture_of_30000_by_30000_pixels_costs_no_memory(store: Store, settings: Settings, tmp_path: Path) -> None:
    bomb = huge_png()
    assert len(bomb) < 200_000
    folder = make_folder(tmp_path / "drop", {"a.tar": tar_bytes([*GOOD, ("bomb.png", bomb)])})
    tracemalloc.start()
    samples, letters = tables(store, folder, settings, tmp_path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [row["key"] for row in samples] == ["good1", "good2"]
    assert letters[0]["reason"] == "too_many_pixels"
    assert "30000 x 30000" in letters[0]["detail"]
    assert peak_bytes < 60 << 20


def peak_of_reading(tmp_path: Path, data: bytes) -> tuple[int, list[Sample | Rejection]]:
    """Bytes that reading a tar takes at most, and what it leads to."""
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    entry = DropObject(key="a.tar", size_bytes=len(data), sha256=digest_hex(digest_bytes(data)))
    tracemalloc.start()
    with Collection(tmp_path, SnapshotConfig()) as found, path.open("rb") as file:
        read_tar(VerifiedReader(file, entry, "a.tar"), drop_of("webdataset", [entry]), "a.tar", found)
        made = [item for _, item in found.read_back()]
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak_bytes, made


def test_memory_follows_the_largest_sample_and_not_the_shard(tmp_path: Path) -> None:
    data = tar_bytes([(f"s{number:02d}.txt", b"%02d " % number * 330_000) for number in range(40)])
    assert len(data) > 39_000_000
    peak_bytes, made = peak_of_reading(tmp_path, data)
    assert len(made) == 40
    assert (tmp_path / "blobs").stat().st_size > 39_000_000
    assert peak_bytes < 15_000_000


def test_a_member_above_its_ceiling_is_never_held_in_memory(tmp_path: Path) -> None:
    data = tar_bytes([("big.png", png() + bytes(60_000_000)), ("small.txt", b"x")])
    peak_bytes, made = peak_of_reading(tmp_path, data)
    assert [getattr(item, "reason", "") for item in made] == ["too_large", ""]
    assert [item.key for item in made] == ["big", "small"]
    assert peak_bytes < 10_000_000


@pytest.mark.parametrize(
    ("config", "member", "reason"),
    [
        (SnapshotConfig(max_text_bytes=10), ("bad.txt", b"x" * 11), "too_large"),
        (SnapshotConfig(max_image_bytes=10), ("bad.png", png()), "too_large"),
        (SnapshotConfig(max_image_pixels=99), ("bad.png", png(10, 10)), "too_many_pixels"),
        (SnapshotConfig(max_audio_seconds=0.2), ("bad.wav", sound("WAV", 0.3)), "too_many_seconds"),
        (SnapshotConfig(max_audio_seconds=0.2), ("bad.flac", sound("FLAC", 0.3)), "too_many_seconds"),
        (SnapshotConfig(max_audio_seconds=0.2), ("bad.ogg", sound("OGG", 0.3)), "too_many_seconds"),
        (SnapshotConfig(max_audio_seconds=0.2), ("bad.mp3", sound("MP3", 2.0)), "too_many_seconds"),
    ],
)
def test_ceilings_reject_what_is_above_them(
    store: Store, settings: Settings, tmp_path: Path, config: SnapshotConfig, member: tuple[str, bytes], reason: str
) -> None:
    folder = make_folder(tmp_path / "drop", {"a.tar": tar_bytes([("ok.txt", b"ok"), member])})
    samples, letters = tables(store, folder, settings, tmp_path, config)
    assert [row["key"] for row in samples] == ["ok"]
    assert [letter["reason"] for letter in letters] == [reason]


def test_members_that_are_not_neighbours_form_one_sample(store: Store, settings: Settings, tmp_path: Path) -> None:
    members = [("./a.txt", b"a"), ("./b.txt", b"b"), ("./a.png", png()), ("./b.png", png())]
    folder = make_folder(tmp_path / "drop", {"a.tar": tar_bytes(members)})
    samples, letters = tables(store, folder, settings, tmp_path)
    assert [(row["key"], row["has_text"], row["has_image"]) for row in samples] == [
        ("a", True, True),
        ("b", True, True),
    ]
    assert letters == []


def test_members_of_unknown_kind_are_recorded_by_digest(store: Store, settings: Settings, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "drop", {"a.tar": tar_bytes([("a.txt", b"a"), ("a.seg.npy", b"12")])})
    samples, letters = tables(store, folder, settings, tmp_path)
    assert letters == []
    assert (
        '"seg.npy":{"digest":"sha256:6b51d431df5d7f141cbececcf79edf3dd861c3b4069f0b11661a3eefacbba918"'
        in (samples[0]["metadata"])
    )


def test_bad_rows_of_an_index_name_their_line(store: Store, settings: Settings, tmp_path: Path) -> None:
    index = (
        jsonl(
            {"id": "good", "text": "hello", "image": "im/1.png", "label": "cat", "colour": "red"},
            {"id": "gone", "audio": "nope.wav"},
            {"id": "good", "text": "twice"},
            {"id": "bomb", "image": "im/bomb.png"},
            {"id": "out", "image": "../secret.png"},
            {"id": "none", "label": "cat"},
            {"id": "empty", "text": ""},
            {"id": "lone", "text": "\ud800"},
        )
        + b"{broken\n\n"
        + b'{"id": "q", "text": "\xff"}\n'
        + jsonl({"id": "last", "text": "last"})
    )
    folder = make_folder(tmp_path / "drop", {"index.jsonl": index, "im/1.png": png(), "im/bomb.png": huge_png()})
    samples, letters = tables(store, folder, settings, tmp_path)
    assert [(row["key"], row["label"], row["metadata"]) for row in samples] == [
        ("good", "cat", '{"colour":"red"}'),
        ("last", None, "{}"),
    ]
    assert {(letter["member"], letter["reason"]) for letter in letters} == {
        ("index.jsonl:2", "missing_file"),
        ("index.jsonl:3", "duplicate_id"),
        ("index.jsonl:4", "too_many_pixels"),
        ("index.jsonl:5", "unsafe_path"),
        ("index.jsonl:6", "no_modality"),
        ("index.jsonl:7", "empty_file"),
        ("index.jsonl:8", "text_not_utf8"),
        ("index.jsonl:9", "bad_row"),
        ("index.jsonl:11", "text_not_utf8"),
    }
    assert {letter["object"] for letter in letters if letter["member"] == "index.jsonl:4"} == {"raw/src/d1/im/bomb.png"}
    report = check_drop(folder)
    assert [problem.line for problem in report.problems] == [2, 3, 4, 5, 6, 7, 8, 9, 11]
    assert {problem.file for problem in report.problems} == {"index.jsonl"}
    assert report.num_samples == 2
