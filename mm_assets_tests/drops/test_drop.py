"""Creating, checking and pushing drops."""

import io
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mm_assets.drops.check import check_drop
from mm_assets.drops.create import create_drop, find_complete_drops, push_drop
from mm_assets.drops.record import drop_key, parse_drop
from mm_assets.errors import DropError, StoreError, UsageError
from mm_assets.store.objects import Store
from mm_assets_tests.drops.raw_data import jsonl, make_folder, png, sound, tar_bytes


def a_folder(tmp_path: Path, name: str = "drop", text: bytes = b"hello") -> Path:
    return make_folder(tmp_path / name, {"a.tar": tar_bytes([("x.txt", text)]), "b.tar": tar_bytes([("y.png", png())])})


def parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def test_create_is_byte_identical_for_the_same_folder(tmp_path: Path) -> None:
    one, two = a_folder(tmp_path, "one"), a_folder(tmp_path, "two")
    create_drop(one, "src", "d1")
    create_drop(two, "src", "d1")
    data = (one / "drop.json").read_bytes()
    assert data == (two / "drop.json").read_bytes()
    create_drop(one, "src", "d1")
    assert (one / "drop.json").read_bytes() == data


def test_drop_json_has_the_promised_keys(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    create_drop(folder, "src", "d1", captured_from="2026-01-01", captured_to="2026-01-02T10:00:00+00:00")
    record = json.loads((folder / "drop.json").read_bytes())
    assert set(record) == {
        "schema", "source", "drop", "captured_from", "captured_to", "format", "objects", "annotation",
    }  # fmt: skip
    assert record["schema"] == "mm.drop/1"
    assert record["format"] == "webdataset"
    assert [set(entry) for entry in record["objects"]] == [{"key", "size_bytes", "sha256"}] * 2
    assert parse_drop((folder / "drop.json").read_bytes(), "here").encode() == (folder / "drop.json").read_bytes()


@pytest.mark.property
@hypothesis_settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.dictionaries(
        st.sampled_from([f"{stem}.{ext}" for stem in ("a", "b/c", "d") for ext in ("txt", "png", "wav", "xyz")]),
        st.binary(max_size=20),
        min_size=1,
    )
)
def test_create_of_any_loose_folder_is_deterministic(
    files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    made: list[bytes] = []
    for names in (list(files), list(reversed(files))):
        folder = make_folder(tmp_path_factory.mktemp("loose"), {name: files[name] for name in names})
        try:
            create_drop(folder, "src", "d1")
        except DropError as error:
            assert "holds no data" in str(error)
            made.append(b"")
            continue
        made.append((folder / "index.jsonl").read_bytes() + (folder / "drop.json").read_bytes())
    assert made[0] == made[1]


def test_loose_files_of_one_stem_become_one_row(tmp_path: Path) -> None:
    folder = make_folder(
        tmp_path / "drop",
        {
            "cats/1.jpg": png(), "cats/1.txt": "ein Käse".encode(), "cats/1.json": b'{"label": "cat", "page": 3}',
            "2.wav": sound(), "2.cls": b"dog\n",
        },
    )  # fmt: skip
    drop = create_drop(folder, "src", "d1")
    rows = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
    assert rows == [
        {"id": "2", "audio": "2.wav", "label": "dog"},
        {"id": "cats/1", "image": "cats/1.jpg", "text": "ein Käse", "label": "cat", "page": 3},
    ]
    assert [entry.key for entry in drop.objects] == ["2.wav", "cats/1.jpg", "index.jsonl"]
    report = check_drop(folder)
    assert report.problems == ()
    assert report.num_samples == 2


def test_a_description_of_loose_files_adds_the_media_that_no_file_has(tmp_path: Path) -> None:
    files = {
        "a.jpg": png(), "a.json": b'{"text": "a caption", "image": "other.jpg", "page": 3}',
        "b.0.jpg": png(), "b.1.jpg": png(), "b.json": b'{"text": "two", "image": 7}',
        "c.0.jpg": png(), "c.1.txt": b"x", "c.json": b'{"content": [], "text": "y", "id": "z"}',
    }  # fmt: skip
    folder = make_folder(tmp_path / "drop", files)
    said: list[str] = []
    create_drop(folder, "src", "d1", on_note=said.append)
    rows = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
    assert rows == [
        {"id": "a", "image": "a.jpg", "text": "a caption", "page": 3},
        {"id": "b", "image": ["b.0.jpg", "b.1.jpg"], "text": "two"},
        {"id": "c", "content": [{"image": "c.0.jpg"}, {"text": "x"}]},
    ]
    assert said[0] == (
        "3 .json files say content, id, image or text of a sample that has it by its files, a.json for example: what "
        "they say of it is left out"
    )


def test_two_pictures_of_one_stem_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "drop", {"1.jpg": png(), "1.png": png()})
    with pytest.raises(DropError, match=r"1\.png: is the second image of sample 1"):
        create_drop(folder, "src", "d1")


def test_an_empty_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DropError, match=f"{tmp_path}: holds no data"):
        create_drop(tmp_path, "src", "d1")


@pytest.mark.parametrize("name", ["Has Space", "../up", "", "UPPER"])
def test_a_name_that_cannot_be_a_key_is_refused(tmp_path: Path, name: str) -> None:
    folder = a_folder(tmp_path)
    with pytest.raises(UsageError, match=f"--drop {re.escape(name)}: is not a valid name"):
        create_drop(folder, "src", name)
    with pytest.raises(UsageError, match=f"--source {re.escape(name)}: is not a valid name"):
        create_drop(folder, name, "d1")
    assert not (folder / "source.yaml").exists()


def test_a_missing_source_description_is_written_and_says_that_nothing_was_declared(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    create_drop(folder, "src", "d1")
    assert "licence: not declared" in (folder / "source.yaml").read_text()
    report = check_drop(folder)
    assert report.problems == ()
    assert "declares nothing about" in report.warnings[0].message


@pytest.mark.parametrize(
    ("rows", "line", "column", "message"),
    [
        ([{"id": "1", "text": "a"}, {"id": "2", "texte": "b"}], 2, "texte", "looks like a mistake for text"),
        ([{"id": "1", "lable": "cat", "text": "a"}], 1, "lable", "looks like a mistake for label"),
        ([{"id": "1", "Text": "a"}], 1, "Text", "looks like a mistake for text"),
        ([{"id": "1", "text": "a", "label": 3.5}], 1, "label", "is a float"),
        ([{"id": "1", "text": "a"}, {"id": [2], "text": "b"}], 2, "id", "is a list"),
        ([{"id": "1", "image": ["a.png", 2]}], 1, "image", "is a list with int in it"),
        ([{"text": "a"}], 1, "id", "is missing"),
    ],
)
def test_a_bad_column_of_a_jsonl_index_is_named_with_its_line(
    tmp_path: Path, rows: list[dict[str, object]], line: int, column: str, message: str
) -> None:
    folder = make_folder(tmp_path / "drop", {"index.jsonl": jsonl(*rows)})
    with pytest.raises(DropError, match=rf"index\.jsonl: line {line}: column {column}: {message}"):
        create_drop(folder, "src", "d1")


def test_a_column_beside_the_known_one_is_no_mistake_for_it(tmp_path: Path) -> None:
    rows = [{"id": "1", "text": "a", "label": "x", "labels": "x,y"}, {"id": "2", "text": "b", "labels": "y"}]
    folder = make_folder(tmp_path / "drop", {"index.jsonl": jsonl(*rows)})
    create_drop(folder, "src", "d1")
    assert check_drop(folder).num_samples == 2


@pytest.mark.parametrize(
    ("columns", "column", "message"),
    [
        ({"id": ["1"], "label": [3.5]}, "label", "is a double"),
        ({"id": ["1"], "langauge": ["en"]}, "langauge", "looks like a mistake for language"),
        ({"id": ["1"], "text": [b"a"]}, "text", "is a binary"),
        ({"text": ["a"]}, "id", "is missing"),
    ],
)
def test_a_bad_column_of_a_parquet_index_is_named(
    tmp_path: Path, columns: dict[str, list[object]], column: str, message: str
) -> None:
    folder = make_folder(tmp_path / "drop", {"index.parquet": parquet(pa.table(columns))})
    with pytest.raises(DropError, match=rf"index\.parquet: line 1: column {column}: {message}"):
        create_drop(folder, "src", "d1")


def test_an_index_that_changed_after_create_fails_the_check_with_its_columns(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "drop", {"index.jsonl": jsonl({"id": "1", "text": "a"})})
    create_drop(folder, "src", "d1")
    (folder / "index.jsonl").write_bytes(jsonl({"id": "1", "text": "b"}))
    report = check_drop(folder)
    assert [problem.is_fatal for problem in report.problems] == [True]
    assert report.problems[0].file == "index.jsonl"
    assert "is not the object that its drop.json declares" in report.problems[0].message


def test_check_names_missing_changed_and_stray_files(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    create_drop(folder, "src", "d1")
    (folder / "a.tar").unlink()
    (folder / "b.tar").write_bytes((folder / "b.tar").read_bytes()[:-1] + b"!")
    (folder / "notes.md").write_bytes(b"hi")
    report = check_drop(folder)
    assert [(problem.file, problem.is_fatal) for problem in report.problems] == [("a.tar", True), ("b.tar", True)]
    assert "is missing from the folder" in report.problems[0].message
    assert "notes.md" in [warning.file for warning in report.warnings]


def test_check_of_a_folder_without_drop_json_says_what_to_run(tmp_path: Path) -> None:
    report = check_drop(tmp_path)
    assert [str(problem) for problem in report.problems] == ["drop.json: is missing: run `mm drop create` first"]


def test_check_names_the_line_of_a_bad_source_description(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    create_drop(folder, "src", "d1")
    path = folder / "source.yaml"
    path.write_text(path.read_text().replace("allowed_uses:\n  - not declared", "allowed_uses: all"))
    report = check_drop(folder)
    assert [problem.file for problem in report.problems] == ["source.yaml"]
    assert "line 8: allowed_uses" in report.problems[0].message


def test_an_id_in_two_tars_is_a_problem_of_the_second(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "drop", {f"{n}.tar": tar_bytes([("x.txt", b"a")]) for n in "ab"})
    create_drop(folder, "src", "d1")
    report = check_drop(folder)
    assert [(problem.file, problem.message) for problem in report.problems] == [
        ("b.tar", "id x occurs in a.tar already (duplicate_id)")
    ]
    assert report.num_samples == 1


def test_a_link_out_of_the_folder_is_no_file_of_the_drop(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png())
    folder = make_folder(tmp_path / "drop", {"index.jsonl": jsonl({"id": "1", "image": "1.png", "text": "a"})})
    (folder / "1.png").symlink_to(secret)
    drop = create_drop(folder, "src", "d1")
    assert [entry.key for entry in drop.objects] == ["index.jsonl"]
    assert "is not in the drop" in check_drop(folder).problems[0].message


# Pushing.


def test_push_makes_the_drop_visible_and_a_second_push_sends_nothing(store: Store, tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    create_drop(folder, "src", "d1")
    first = push_drop(store, folder)
    assert (first.num_objects, first.num_uploaded, first.was_there) == (2, 2, False)
    assert find_complete_drops(store) == [("src", "d1")]
    assert {info.key for info in store.list_keys("raw/")} == {
        "raw/src/source.yaml", "raw/src/d1/drop.json", "raw/src/d1/a.tar", "raw/src/d1/b.tar",
    }  # fmt: skip
    again = push_drop(store, folder)
    assert (again.num_uploaded, again.was_there) == (0, True)


def test_an_interrupted_push_leaves_no_visible_drop_and_is_resumed(store: Store, tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    create_drop(folder, "src", "d1")
    kept = (folder / "b.tar").read_bytes()
    (folder / "b.tar").unlink()
    with pytest.raises(DropError, match=r"b\.tar: does not exist"):
        push_drop(store, folder)
    assert store.read_key(drop_key("src", "d1")) is None
    assert find_complete_drops(store) == []
    (folder / "b.tar").write_bytes(kept)
    report = push_drop(store, folder)
    assert (report.num_uploaded, report.num_objects) == (1, 2)
    assert find_complete_drops(store) == [("src", "d1")]


def test_push_refuses_a_file_that_changed_since_create(store: Store, tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    create_drop(folder, "src", "d1")
    (folder / "a.tar").write_bytes(b"other")
    with pytest.raises(DropError, match=r"a\.tar: has changed since drop\.json was written"):
        push_drop(store, folder)
    assert find_complete_drops(store) == []


def test_another_drop_of_the_same_name_is_one_clear_error(store: Store, tmp_path: Path) -> None:
    one, two = a_folder(tmp_path, "one"), a_folder(tmp_path, "two", text=b"other")
    for folder in (one, two):
        create_drop(folder, "src", "d1")
    push_drop(store, one)
    with pytest.raises(DropError, match=r"raw/src/d1/drop\.json: another drop of that name is in the store"):
        push_drop(store, two)


def test_push_repairs_an_object_that_was_damaged_or_lost_in_the_store(store: Store, tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    create_drop(folder, "src", "d1")
    push_drop(store, folder)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(bytes(len((folder / "a.tar").read_bytes())))
    store.upload_key("raw/src/d1/a.tar", damaged)
    assert push_drop(store, folder).num_uploaded == 1
    with store.open_key("raw/src/d1/a.tar") as body:
        assert body.read() == (folder / "a.tar").read_bytes()


def test_a_large_object_is_recognised_without_sending_it_again(store: Store, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "drop", {"a.tar": tar_bytes([("x.wav", sound("WAV", 700.0))])})
    assert (folder / "a.tar").stat().st_size > 8 << 20
    create_drop(folder, "src", "d1")
    assert push_drop(store, folder).num_uploaded == 1
    assert push_drop(store, folder).num_uploaded == 0


def test_a_source_is_described_once(store: Store, tmp_path: Path) -> None:
    one, two, three = (a_folder(tmp_path, name) for name in ("one", "two", "three"))
    create_drop(one, "src", "d1")
    (one / "source.yaml").write_text((one / "source.yaml").read_text().replace("owner: not declared", "owner: Ada"))
    push_drop(store, one)
    create_drop(two, "src", "d2")
    push_drop(store, two)
    with store.open_key("raw/src/source.yaml") as body:
        assert b"owner: Ada" in body.read()
    create_drop(three, "src", "d3")
    (three / "source.yaml").write_text((three / "source.yaml").read_text().replace("owner: not declared", "owner: Bo"))
    with pytest.raises(DropError, match="differs from the description of src in the store"):
        push_drop(store, three)


def test_push_to_a_missing_bucket_is_one_sentence(store: Store, tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    create_drop(folder, "src", "d1")
    elsewhere = Store(client=store.client, bucket="no-such-bucket", prefix="store")
    with pytest.raises((StoreError, LookupError), match="no-such-bucket"):
        push_drop(elsewhere, folder)


@pytest.mark.integration
def test_a_real_server_is_pushed_to_once(seaweed_store: Store, tmp_path: Path) -> None:
    files = {"a.tar": tar_bytes([("x.wav", sound("WAV", 700.0))]), "b.tar": tar_bytes([("y.txt", b"y")])}
    folder = make_folder(tmp_path / "drop", files)
    create_drop(folder, "src", "d1")
    assert push_drop(seaweed_store, folder).num_uploaded == 2
    assert push_drop(seaweed_store, folder).num_uploaded == 0
    assert find_complete_drops(seaweed_store) == [("src", "d1")]


# What is left out.


def test_files_that_are_no_part_of_a_delivery_are_said(tmp_path: Path) -> None:
    folder = make_folder(
        tmp_path / "d", {"a.tar": tar_bytes([("a.txt", b"a")]), ".DS_Store": b"x", ".git/config": b"x"}
    )
    (tmp_path / "elsewhere.tar").write_bytes(tar_bytes([("b.txt", b"b")]))
    (folder / "b.tar").symlink_to(tmp_path / "elsewhere.tar")
    create_drop(folder, "src", "d1")
    said = {problem.file: problem.message for problem in check_drop(folder).warnings}
    assert said[".DS_Store"] == "is hidden, so it is not pushed (1 more such files)"
    assert said["b.tar"] == "is a link that leaves the folder or leads nowhere, so it is not pushed"


def test_members_that_are_left_out_are_said(tmp_path: Path) -> None:
    members = [("__meta__/count", b"2"), ("._a.txt", b"x"), ("a.txt", b"a")]
    folder = make_folder(tmp_path / "d", {"a.tar": tar_bytes(members)})
    create_drop(folder, "src", "d1")
    (said,) = (problem for problem in check_drop(folder).warnings if problem.member)
    assert (said.file, said.member) == ("a.tar", "__meta__/count")
    assert said.message.startswith(
        "2 members that are hidden (.name) or describe the tar itself (__name__) are left out"
    )


def test_an_index_that_was_made_of_loose_files_is_made_anew(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", {"a.txt": b"a", "a.png": png()})
    first = create_drop(folder, "src", "d1")
    assert create_drop(folder, "src", "d1") == first
    make_folder(folder, {"b.txt": b"b", "b.png": png()})
    create_drop(folder, "src", "d2")
    report = check_drop(folder)
    assert report.num_samples == 2
    said = [str(problem) for problem in report.warnings if problem.file != "source.yaml"]
    assert said == [
        "a.txt: was read into index.jsonl, so it is not pushed (1 more files of this type are not pushed either)"
    ]


def test_an_index_that_was_changed_by_hand_is_kept(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", {"a.txt": b"a", "a.png": png()})
    create_drop(folder, "src", "d1")
    changed = jsonl({"id": "a", "text": "by hand"})
    (folder / "index.jsonl").write_bytes(changed)
    make_folder(folder, {"b.txt": b"b"})
    create_drop(folder, "src", "d2")
    assert (folder / "index.jsonl").read_bytes() == changed
    assert check_drop(folder).num_samples == 1
