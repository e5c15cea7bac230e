"""Several pictures, texts and clips per sample, and their order, as the programs that people use write them.

``fixtures/hugging_face_lists.parquet`` was written by ``Dataset.to_parquet`` of ``datasets`` 5.2.0: features
``images: List(Image())`` and ``texts: List(Value("string"))``, nulls as in OBELICS.
"""

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mm_assets.drops.check import check_drop
from mm_assets.drops.create import create_drop
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.parts import is_plain, reading_order
from mm_assets.drops.samples import Rejection, Sample
from mm_assets.errors import DropError
from mm_assets.modalities.table import NAMES, PACKED
from mm_assets.settings import Settings
from mm_assets.store.objects import Store
from mm_assets.store.tables import read_parquet
from mm_assets_tests.drops.raw_data import (
    deliver,
    freeze,
    jsonl,
    make_folder,
    open_test_release,
    png,
    read_one_tar,
    snapshot_findings,
    sound,
    tar_bytes,
)

FIXTURE = Path(__file__).parent.parent / "fixtures" / "hugging_face_lists.parquet"


def members(folder: Path, store: Store, settings: Settings) -> tuple[dict[str, list[str]], list[dict[str, Any]]]:
    """By key the extensions of a sample in the tar, as plain ``webdataset`` reads it, and the rows of the table."""
    deliver(store, folder)
    manifest = freeze(store, open_test_release(store, ("src", "d1")), "0000", settings).manifest
    assert all(finding.passed for finding in snapshot_findings(store, manifest)[:2])
    tar = store.fetch(manifest.output("samples.tar").digest, folder.parent / "o").rename(folder.parent / "s.tar")
    read = webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False)
    found = {
        json.loads(sample["json"])["id"].rpartition("/")[2]: sorted(
            name for name in sample if not name.startswith("__") and name != "json"
        )
        for sample in read
    }
    return found, read_parquet(store.fetch(manifest.output("samples.parquet").digest, folder.parent / "o")).to_pylist()


def kinds(made: Sample | Rejection) -> list[str]:
    assert isinstance(made, Sample)
    return [part.format for part in made.parts]


# Tars.


def test_pictures_and_clips_that_webdataset_numbers_are_parts_of_one_sample(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    with webdataset.ShardWriter(str(folder / "%03d.tar"), maxcount=10, verbose=0) as writer:
        writer.write({"__key__": "a", "txt": "eins", "0.png": png(shade=1), "1.png": png(shade=2), "0.wav": sound()})
        writer.write({"__key__": "b", "txt": "zwei", "1.png": png(shade=3)})
        writer.write({"__key__": "c", "0.txt": "vor", "1.png": png(shade=4), "2.txt": "nach"})
    found, rows = members(folder, store, settings)
    assert found == {
        "a": ["0.png", "1.wav", "2.png", "3.txt"], "b": ["png", "txt"], "c": ["0.txt", "1.png", "2.txt"],
    }  # fmt: skip
    a, b, c = rows
    assert [part["place"] for part in a["image_parts"]] == [0, 2]
    assert a["image_digest"] == a["image_parts"][0]["digest"]
    assert b["image_parts"] is b["text_parts"] is None
    assert [part["place"] for part in c["text_parts"]] == [0, 2]


def test_a_shard_that_is_delivered_again_keeps_its_parts_in_their_order(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    first = tar_bytes([("c.2.txt", b"nach"), ("c.0.txt", b"vor"), ("c.1.png", png()), ("c.wav", sound())])
    folder = make_folder(tmp_path / "d", {"a.tar": first})
    members(folder, store, settings)
    (one,) = read_one_tar(first, tmp_path)
    (made,) = read_one_tar((tmp_path / "s.tar").read_bytes(), tmp_path)
    assert kinds(made) == kinds(one) == ["wav", "txt", "png", "txt"]


@pytest.mark.parametrize(
    ("names", "reason", "detail"),
    [
        (["a.0.png", "a.png"], "ambiguous_modality", "two members of modality image"),
        (["a.1.png", "a.01.webp"], "unsupported_format", ""),
        (["a.1.png", "a.01.png"], "ambiguous_modality", "two members of modality image"),
        ([f"a.{number}.png" for number in range(5)], "too_many_parts", "sample has 5 parts; 4 are allowed"),
        (["a.0.png", "a.1.png", "a.2.png"], "too_large", "sample has"),
    ],
)
def test_parts_that_cannot_be_told_apart_or_are_too_many_reject_their_sample(
    names: list[str], reason: str, detail: str, tmp_path: Path
) -> None:
    data = tar_bytes([(name, b"RIFF" if name.endswith("webp") else png()) for name in names] + [("b.txt", b"b")])
    config = SnapshotConfig(max_sample_parts=4, max_sample_bytes=int(2.5 * len(png())))
    made, other = read_one_tar(data, tmp_path, config)
    assert isinstance(other, Sample)
    assert isinstance(made, Rejection)
    assert made.reason == reason
    assert detail in made.detail


def test_a_bad_part_is_named(tmp_path: Path) -> None:
    (made,) = read_one_tar(tar_bytes([("a.0.png", png()), ("a.1.png", b"GIF89a" + bytes(30))]), tmp_path)
    assert isinstance(made, Rejection)
    assert (made.reason, made.member, made.modality) == ("unsupported_format", "a.1.png", "image")


def test_numbered_members_of_unknown_extension_are_counted_by_their_extension(tmp_path: Path) -> None:
    folder = make_folder(
        tmp_path / "d", {"a.tar": tar_bytes([("a.txt", b"a"), *((f"a.{n}.gif", b"G") for n in range(3))])}
    )
    create_drop(folder, "src", "d1")
    said = [problem.message for problem in check_drop(folder).warnings]
    assert any(message.startswith("3 members of unknown extension gif") for message in said)


# Indexes.


def test_lists_in_json_lines_are_parts_in_their_order(store: Store, settings: Settings, tmp_path: Path) -> None:
    rows = [
        {"id": "a", "text": "eins", "image": ["1.png", "0.png"]},
        {"id": "b", "text": ["vor", None, "nach"], "image": [None, "0.png", None]},
        {"id": "c", "text": ["allein"], "image": ["0.png"]},
        {"id": "d", "text": "eins", "image": "0.png"},
    ]
    files = {"index.jsonl": jsonl(*rows), "0.png": png(), "1.png": png(shade=9)}
    found, table = members(make_folder(tmp_path / "d", files), store, settings)
    assert found == {
        "a": ["0.png", "1.png", "2.txt"], "b": ["0.txt", "1.png", "2.txt"], "c": ["png", "txt"], "d": ["png", "txt"],
    }  # fmt: skip
    first = [part["digest"] for part in table[0]["image_parts"]]
    assert first[1] == table[3]["image_digest"] != first[0]


def test_content_holds_the_parts_of_a_sample_in_order(store: Store, settings: Settings, tmp_path: Path) -> None:
    rows = [
        {"id": "a", "content": [{"type": "image", "image": "0.png"}, {"type": "text", "text": "danach"}], "page": 3},
        {"id": "b", "content": [{"text": "vor"}, {"image": "0.png"}, {"text": "nach"}, {"audio": "c.wav"}]},
        {"id": "c", "content": [{"text": "vor", "image": "0.png"}]},
        {"id": "d", "content": [{"text": "vor"}], "text": "zwei"},
    ]
    files = {"index.jsonl": jsonl(*rows), "0.png": png(), "c.wav": sound()}
    folder = make_folder(tmp_path / "d", files)
    create_drop(folder, "src", "d1")
    report = check_drop(folder)
    assert [(problem.line, problem.message) for problem in report.problems] == [
        (
            3,
            "part 0 of content has text and image; an object with one of text, image, audio, video is expected "
            "(bad_row)",
        ),
        (4, "row has content and text of its own; one of them is expected (bad_row)"),
    ]
    assert "column content is read as the parts of a sample, in order" in [note.message for note in report.warnings]
    found, table = members(folder, store, settings)
    assert found == {"a": ["png", "txt"], "b": ["0.txt", "1.png", "2.txt", "3.wav"]}
    assert [row["metadata"] for row in table] == ['{"page":3}', "{}"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_what_content_says_of_its_parts_is_kept(kind: str, store: Store, settings: Settings, tmp_path: Path) -> None:
    parts = [
        {"type": "image", "image": "0.png", "alt": "a cat", "box": [1, 2, 3, 4]}, {"text": ""}, {"text": "danach"},
        {"text": "zwei", "caption": "two"},
    ]  # fmt: skip
    folder = make_folder(tmp_path / "d", {"index.jsonl": jsonl({"id": "a", "content": parts}), "0.png": png()})
    if kind == "parquet":
        (folder / "index.jsonl").unlink()
        pq.write_table(pa.table({"id": ["a"], "content": [parts]}), folder / "index.parquet")
    _, table = members(folder, store, settings)
    assert json.loads(table[0]["metadata"]) == {
        "content": [{"place": 0, "alt": "a cat", "box": [1, 2, 3, 4]}, {"place": 2, "caption": "two"}]
    }


def test_a_picture_of_mmc4_without_a_name_is_refused(tmp_path: Path) -> None:
    image = {"raw_url": "http://example.org/b", "matched_text_index": 0}
    rows = [
        {"text_list": ["eins"], "image_info": [{**image, "image_name": None}]},
        {"text_list": ["zwei"], "image_info": [{**image, "image_name": "a.png"}]},
    ]
    folder = make_folder(tmp_path / "d", {"index.jsonl": jsonl(*rows), "a.png": png()})
    create_drop(folder, "src", "d1")
    report = check_drop(folder)
    assert report.num_samples == 1
    assert [(problem.line, problem.message) for problem in report.problems] == [
        (
            1,
            "part 0 of content has image without a value; an object with one of text, image, audio, video is expected "
            "(bad_row)",
        )
    ]


def test_content_of_drops_that_do_not_say_that_it_is_read_stays_metadata(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", {"index.jsonl": jsonl({"id": "a", "text": "eins", "content": ["x"]})})
    create_drop(folder, "src", "d1")
    assert "columns" not in json.loads((folder / "drop.json").read_bytes())
    assert (check_drop(folder).num_samples, check_drop(folder).problems) == (1, ())


def test_pictures_of_mmc4_are_read_before_the_texts_they_were_matched_with(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    row = {
        "url": "http://example.org",
        "text_list": ["null", "eins", "zwei"],
        "image_info": [
            {"image_name": "b.png", "raw_url": "http://example.org/b", "matched_text_index": 2, "matched_sim": 0.3},
            {"image_name": "a.png", "raw_url": "http://example.org/a", "matched_text_index": 1, "matched_sim": 0.2},
        ],
        "similarity_matrix": [[0.1, 0.2, 0.3], [0.1, 0.2, 0.1]],
    }
    files = {"index.jsonl": jsonl(row), "a.png": png(shade=1), "b.png": png(shade=2)}
    folder = make_folder(tmp_path / "d", files)
    found, table = members(folder, store, settings)
    assert found == {"0": ["0.txt", "1.png", "2.txt", "3.png", "4.txt"]}
    assert json.loads((folder / "drop.json").read_bytes())["columns"] == {"content": "text_list", "id": None}
    assert json.loads(table[0]["metadata"])["url"] == "http://example.org"


def test_file_names_of_imagefolder_are_the_pictures_of_a_sample(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    rows = [{"file_names": ["0.png", "1.png"], "text": "zwei"}, {"file_names": ["1.png"], "text": "eins"}]
    files = {"metadata.jsonl": jsonl(*rows), "0.png": png(), "1.png": png(shade=9)}
    found, _ = members(make_folder(tmp_path / "d", files), store, settings)
    assert found == {"0": ["0.png", "1.png", "2.txt"], "1": ["png", "txt"]}


def test_parquet_of_hugging_face_datasets_with_lists(store: Store, settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    shutil.copy(FIXTURE, folder / "index.parquet")
    found, _ = members(folder, store, settings)
    assert found == {"0": ["0.png", "1.txt", "2.png"], "1": ["png", "txt"]}
    assert json.loads((folder / "drop.json").read_bytes())["columns"] == {
        "id": None, "image": "images", "text": "texts",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["names", "bytes", "structs", "content"])
def test_parquet_with_lists_of_names_bytes_and_structs(
    kind: str, store: Store, settings: Settings, tmp_path: Path
) -> None:
    medium = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    if kind == "content":
        part = pa.struct([("text", pa.string()), ("image", medium)])
        values = [[{"image": {"bytes": png(shade=5)}}, {"text": "eins"}, {"image": {"path": "0.png"}}], None]
        column = {"content": pa.array(values, pa.list_(part)), "text": [None, "zwei"]}
    else:
        structs = [{"bytes": png()}, {"path": "1.png"}]
        cells = {"names": ["0.png", "1.png"], "bytes": [png(), png(shade=9)], "structs": structs}
        types = {"names": pa.string(), "bytes": pa.binary(), "structs": medium}
        column = {"image": pa.array([cells[kind], None], pa.list_(types[kind])), "text": ["eins", "zwei"]}
    folder = make_folder(tmp_path / "d", {"0.png": png(), "1.png": png(shade=9)})
    pq.write_table(pa.table({"id": ["a", "b"], **column}), folder / "index.parquet")
    found, _ = members(folder, store, settings)
    expected = ["0.png", "1.txt", "2.png"] if kind == "content" else ["0.png", "1.png", "2.txt"]
    assert found == {"a": expected, "b": ["txt"]}


@pytest.mark.parametrize("value", [[1], [["a.png"]], {"a": 1}, [{"bytes": "x"}]])
def test_a_list_of_other_things_makes_the_index_unusable(value: object, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", {"index.jsonl": jsonl({"id": "a", "text": "x", "image": value})})
    with pytest.raises(DropError, match=r"line 1: column image: is a (list with|dict).*a list of strings"):
        create_drop(folder, "src", "d1")


def test_a_missing_file_of_a_list_is_named(tmp_path: Path) -> None:
    row = {"id": "a", "image": ["0.png", "gone.png"]}
    folder = make_folder(tmp_path / "d", {"index.jsonl": jsonl(row, {"id": "b", "text": "b"}), "0.png": png()})
    create_drop(folder, "src", "d1")
    assert [problem.message for problem in check_drop(folder).problems] == [
        "image 2 of 2 'gone.png' is not in the drop (missing_file)"
    ]


# Loose files.


def test_loose_files_with_numbers_are_parts(store: Store, settings: Settings, tmp_path: Path) -> None:
    files = {
        "x.txt": b"x", "x.0.png": png(), "x.1.png": png(shade=9),
        "y.0.txt": b"vor", "y.1.png": png(), "y.2.txt": b"nach", "y.json": b'{"label": "cat"}',
        "z.txt": b"z", "z.0.png": png(),
    }  # fmt: skip
    said: list[str] = []
    folder = make_folder(tmp_path / "d", files)
    create_drop(folder, "src", "d1", on_note=said.append)
    assert said == ["6 files with a number before their extension are parts of 3 samples: x has 2"]
    found, table = members(folder, store, settings)
    assert found == {"x": ["0.png", "1.png", "2.txt"], "y": ["0.txt", "1.png", "2.txt"], "z": ["png", "txt"]}
    assert [row["label"] for row in table] == [None, "cat", None]


def test_loose_files_at_one_place_are_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", {"x.0.png": png(), "x.png": png()})
    with pytest.raises(DropError, match=r"/x: two files of this sample are image at one place: expected a number"):
        create_drop(folder, "src", "d1")


# The order.


def test_plain_samples_are_read_in_the_order_of_a_pack() -> None:
    assert is_plain(["image", "audio", "text"])
    assert is_plain(["text"])
    assert not is_plain(["text", "image"])
    assert not is_plain(["image", "image"])


@pytest.mark.property
@hypothesis_settings(max_examples=100, deadline=None)
@given(
    parts=st.lists(st.tuples(st.sampled_from(NAMES), st.none() | st.integers(0, 9)), unique=True, max_size=8),
    shuffled=st.randoms(use_true_random=False),
)
@example(parts=[("text", None), ("text", 0)], shuffled=Random(1))
def test_the_order_of_parts_is_that_of_their_numbers_whatever_order_they_come_in(
    parts: list[tuple[str, int | None]], shuffled: Any
) -> None:
    ordered = [parts[position] for position in reading_order(parts)]
    other = list(parts)
    shuffled.shuffle(other)
    if len({modality for modality, number in parts if number is None}) == sum(number is None for _, number in parts):
        assert [other[position] for position in reading_order(other)] == ordered
    for name in NAMES:
        numbers = [number for modality, number in ordered if modality == name and number is not None]
        assert numbers == sorted(numbers)
    one_each = list({modality: (modality, None) for modality, _ in parts}.values())
    assert is_plain([one_each[position][0] for position in reading_order(one_each)])
    assert len(PACKED) == len(NAMES)
