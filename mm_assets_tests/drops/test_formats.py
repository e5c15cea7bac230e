"""Every row of the table of formats in README, from files as the programs that people use write them.

``fixtures/hugging_face.parquet`` was written by ``Dataset.to_parquet`` of ``datasets`` 5.2.0: features ``Image``,
``Audio``, ``ClassLabel(["cat", "dog"])`` and strings; the label of the last row is -1, none.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mm_assets.drops.check import DropReport, check_drop
from mm_assets.drops.create import create_drop
from mm_assets.drops.index import read_index, read_part
from mm_assets.drops.layout import lay_out
from mm_assets.drops.record import parse_drop
from mm_assets.errors import DropError
from mm_assets.settings import Settings
from mm_assets.store.objects import Store
from mm_assets.store.tables import read_parquet
from mm_assets_tests.drops.raw_data import deliver, freeze, jsonl, make_folder, open_test_release, png, sound

FIXTURE = Path(__file__).parent.parent / "fixtures" / "hugging_face.parquet"


def frozen_rows(store: Store, settings: Settings, folder: Path, num_shards: int = 1) -> list[dict[str, Any]]:
    """The samples that a release over the drop in ``folder`` freezes, by key."""
    deliver(store, folder)
    spec = open_test_release(store, ("src", "d1"), num_shards=num_shards)
    rows: list[dict[str, Any]] = []
    for shard in range(num_shards):
        manifest = freeze(store, spec, f"{shard:04d}", settings).manifest
        path = store.fetch(manifest.output("samples.parquet").digest, folder.parent / "o")
        rows += read_parquet(path).to_pylist()
    return sorted(rows, key=lambda row: str(row["key"]))


def picked(rows: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in rows]


def notes(report: DropReport) -> list[str]:
    return [problem.message for problem in report.warnings if "declares nothing" not in problem.message]


def created(folder: Path, files: Mapping[str, bytes], index: str | None = None) -> DropReport:
    create_drop(make_folder(folder, files), "src", "d1", index=index)
    return check_drop(folder)


# Parquet.


def test_parquet_of_hugging_face_datasets(store: Store, settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    shutil.copy(FIXTURE, folder / "index.parquet")
    rows = frozen_rows(store, settings, folder)
    assert picked(rows, "key", "label", "image_format", "audio_format", "metadata") == [
        ("0", "cat", "png", None, '{"page":1}'),
        ("1", "dog", "png", "wav", '{"page":2}'),
        ("2", None, None, None, '{"page":3}'),
    ]
    report = check_drop(folder)
    assert (report.problems, report.num_samples) == ((), 3)
    assert notes(report) == [
        "has no column id: rows are numbered from 0",
        "column caption is read as text",
        "the numbers of column label are read as the names of its classes, cat and 1 more",
    ]
    recorded = json.loads((folder / "drop.json").read_bytes())
    assert recorded["columns"] == {"id": None, "text": "caption"}


def test_parquet_with_bytes_numbers_and_names_of_files(store: Store, settings: Settings, tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([10, 11], pa.int64()),
            "label": pa.array([3, None], pa.int32()),
            "image": pa.array([png(), None], pa.large_binary()),
            "audio": pa.array(
                [None, {"bytes": None, "path": "b.wav"}], pa.struct([("bytes", "binary"), ("path", "str")])
            ),
        }
    )
    folder = make_folder(tmp_path / "d", {"b.wav": sound()})
    pq.write_table(table, folder / "index.parquet")
    rows = frozen_rows(store, settings, folder)
    assert picked(rows, "key", "label", "image_format", "audio_format") == [
        ("10", "3", "png", None), ("11", None, None, "wav"),
    ]  # fmt: skip


def test_empty_bytes_are_an_empty_file_and_no_file_name(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", {"a.png": png()})
    image = [{"bytes": b"", "path": "a.png"}, {"bytes": png(), "path": "gone.png"}]
    pq.write_table(pa.table({"image": image}), folder / "index.parquet")
    create_drop(folder, "src", "d1")
    report = check_drop(folder)
    assert report.num_samples == 1
    assert [problem.message for problem in report.problems] == ["image has no bytes (empty_file)"]


def test_a_large_picture_in_a_parquet_cell_is_read_and_one_above_the_ceiling_is_refused(tmp_path: Path) -> None:
    padding = bytes(5 << 20)
    table = pa.table({"id": ["a", "b"], "image": [png() + padding, png() + bytes(33 << 20)]})
    folder = make_folder(tmp_path / "d", {})
    folder.mkdir()
    pq.write_table(table, folder / "index.parquet")
    create_drop(folder, "src", "d1")
    report = check_drop(folder)
    assert report.num_samples == 1
    assert [problem.line for problem in report.problems] == [2]
    assert "(too_large)" in report.problems[0].message


def test_a_parquet_index_by_parts_is_the_whole(store: Store, settings: Settings, tmp_path: Path) -> None:
    table = pa.table(
        {"image": [{"bytes": png(shade=n), "path": f"{n}.png"} for n in range(40)], "label": list(range(40))}
    )
    folder = make_folder(tmp_path / "d", {})
    folder.mkdir()
    pq.write_table(table, folder / "index.parquet", row_group_size=7)
    rows = frozen_rows(store, settings, folder, num_shards=3)
    assert {row["key"]: row["label"] for row in rows} == {str(n): str(n) for n in range(40)}


# Imagefolder and audiofolder.


@pytest.mark.parametrize(("extension", "data"), [("png", png()), ("wav", sound())])
def test_class_folders_are_labels(
    store: Store, settings: Settings, tmp_path: Path, extension: str, data: bytes
) -> None:
    files = {f"train/{label}/{n}.{extension}": data for label in ("cat", "dog") for n in (1, 2)}
    said: list[str] = []
    create_drop(make_folder(tmp_path / "said", files), "src", "d1", on_note=said.append)
    assert said == ["labels are the names of 2 folders, cat to dog"]
    rows = frozen_rows(store, settings, make_folder(tmp_path / "d", files))
    assert picked(rows, "key", "label") == [
        ("train/cat/1", "cat"), ("train/cat/2", "cat"), ("train/dog/1", "dog"), ("train/dog/2", "dog"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "files",
    [
        {"photos/a.png": png(), "songs/a.wav": sound()},
        {"train/a.png": png(), "test/b.png": png()},
        {"all/a.png": png(), "all/b.png": png()},
        {"a.png": png(), "cat/b.png": png()},
    ],
)
def test_folders_that_are_no_classes_are_no_labels(tmp_path: Path, files: dict[str, bytes]) -> None:
    created(tmp_path / "d", files)
    rows = [json.loads(line) for line in (tmp_path / "d" / "index.jsonl").read_text().splitlines()]
    assert [row.get("label") for row in rows] == [None, None]


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "metadata.parquet", "train/metadata.csv"])
def test_metadata_of_an_imagefolder_is_its_index(store: Store, settings: Settings, tmp_path: Path, name: str) -> None:
    table = pd.DataFrame({"file_name": ["0001.png", "0002.png"], "caption": ["a, b", 'say "c"'], "stars": [3, 4]})
    folder = make_folder(tmp_path / "d", {})
    path = folder / name
    for file in ("0001.png", "0002.png"):
        make_folder(path.parent, {file: png()})
    if name.endswith("csv"):
        table.to_csv(path, index=False)
    elif name.endswith("parquet"):
        table.to_parquet(path)
    else:
        table.to_json(path, orient="records", lines=True)
    rows = frozen_rows(store, settings, folder)
    stars = '{"stars":3}' if not name.endswith("csv") else '{"stars":"3"}'
    assert picked(rows, "key", "has_text", "image_format")[0] == ("0001.png", True, "png")
    assert rows[0]["metadata"] == stars
    assert json.loads((folder / "drop.json").read_bytes())["columns"] == {
        "id": "file_name", "image": "file_name", "text": "caption",
    }  # fmt: skip


def test_two_metadata_files_are_one_sentence(tmp_path: Path) -> None:
    files = {f"{split}/metadata.csv": b"file_name\na.png\n" for split in ("test", "train")}
    with pytest.raises(DropError, match=r"has 2 indexes, test/metadata\.csv and train/metadata\.csv among them"):
        created(tmp_path / "d", files)


# CSV and TSV.

COMMON_VOICE = (
    "client_id\tpath\tsentence\tup_votes\tlocale\n"
    'c1\tcommon_voice_1.mp3\tSie sagte: "Ja\t2\tde\n'
    "c2\tcommon_voice_2.mp3\tZwei.\t3\tde\n"
)


def test_common_voice_as_it_is_unpacked(store: Store, settings: Settings, tmp_path: Path) -> None:
    mp3 = sound("MP3", 0.5)
    files = {"validated.tsv": COMMON_VOICE.encode(), "other.tsv": b"path\n"}
    folder = make_folder(tmp_path / "d", files | {f"clips/common_voice_{n}.mp3": mp3 for n in (1, 2)})
    with pytest.raises(DropError, match=r"holds no data: .* Name other\.tsv with --index if it is the index"):
        create_drop(make_folder(tmp_path / "none", files), "src", "d1")
    said: list[str] = []
    loose = make_folder(tmp_path / "loose", files | {"clips/common_voice_1.mp3": mp3})
    create_drop(loose, "src", "d1", on_note=said.append)
    assert said == ["other.tsv is not read: if it is the index of these files, name it with --index"]
    create_drop(folder, "src", "d1", index="validated.tsv")
    report = check_drop(folder)
    assert (report.problems, report.num_samples) == ((), 2)
    assert notes(report)[-5:] == [
        "column path is read as audio",
        "column path is read as id",
        "column locale is read as language",
        "column sentence is read as text",
        "its files are looked for in clips/",
    ]
    record = parse_drop((folder / "drop.json").read_bytes(), "here")
    assert (record.index_file, record.media_folder) == ("validated.tsv", "clips")
    assert record.encode() == (folder / "drop.json").read_bytes()


def test_samples_of_common_voice(store: Store, settings: Settings, tmp_path: Path) -> None:
    files = {f"clips/common_voice_{n}.mp3": sound("MP3", 0.5) for n in (1, 2)}
    folder = make_folder(tmp_path / "d", files | {"index.tsv": COMMON_VOICE.encode()})
    rows = frozen_rows(store, settings, folder, num_shards=2)
    assert picked(rows, "key", "language", "audio_format", "has_text", "metadata") == [
        ("common_voice_1.mp3", "de", "mp3", True, '{"client_id":"c1","up_votes":"2"}'),
        ("common_voice_2.mp3", "de", "mp3", True, '{"client_id":"c2","up_votes":"3"}'),
    ]


def test_csv_as_pandas_writes_it_by_parts(store: Store, settings: Settings, tmp_path: Path) -> None:
    texts = [f'line {n},\n"quoted" and\r\nmore' for n in range(50)]
    folder = make_folder(tmp_path / "d", {})
    folder.mkdir()
    frame = pd.DataFrame({"id": range(50), "text": texts, "label": range(50)})
    frame.to_csv(folder / "index.csv", index=False)
    rows = frozen_rows(store, settings, folder, num_shards=3)
    assert {row["key"]: row["label"] for row in rows} == {str(n): str(n) for n in range(50)}
    assert {row["text_size_bytes"] for row in rows if int(row["key"]) > 9} == {len(texts[10])}


@pytest.mark.property
@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.text(alphabet='a1,"\n\r\t\x00\u00e9', max_size=60).map(str.encode) | st.binary(max_size=40),
    suffix=st.sampled_from([".csv", ".tsv"]),
    num_shards=st.integers(1, 4),
)
def test_rows_of_any_csv_by_parts_are_those_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, suffix: str, num_shards: int
) -> None:
    folder = tmp_path_factory.mktemp("csv")
    path = folder / f"index{suffix}"
    path.write_bytes(b"id,text\n".replace(b",", b"," if suffix == ".csv" else b"\t") + body)
    try:
        rows = list(read_index(path, "index"))
        layout = lay_out(path, "index", num_shards, folder)
    except DropError as error:
        assert str(error).startswith("index: line ")
        return
    assert [row for part in layout.parts for row in read_part(path, "index", part)] == rows
    assert [row.number for row in rows] == list(range(layout.num_rows))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "index.csv: is empty: expected a first row with the names of columns"),
        (b"id,text,text\n1,a,b\n", "line 1: column text: is given twice"),
        (b'id,text\n1,"open\n2,b\n', "line 2: the row that begins there does not end: is a quote not closed"),
        (b"text\na\n", "line 2: column id: is missing"),
    ],
)
def test_a_csv_that_cannot_be_used_is_one_sentence(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(DropError, match=message):
        created(tmp_path / "d", {"index.csv": data})


def test_a_bad_row_of_a_csv_is_that_rows_problem(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbfid,text\n1,a\n2\n3,"b"c\n4,\xff\n5,e\n'
    report = created(tmp_path / "d", {"index.csv": data})
    assert report.num_samples == 2
    assert [(problem.line, problem.message.partition(":")[0]) for problem in report.problems] == [
        (3, "row has 1 fields; the first row names 2 columns (bad_row)"),
        (4, "row is not valid"),
        (5, "row is not UTF-8"),
    ]


# Names of columns.


def test_the_known_name_wins_and_the_other_is_metadata(store: Store, settings: Settings, tmp_path: Path) -> None:
    rows = [{"id": "1", "text": "kept", "caption": "further"}, {"id": "2", "caption": "alone"}]
    report = created(tmp_path / "d", {"index.jsonl": jsonl(*rows)})
    assert notes(report) == ["column caption is kept as metadata: text is read from column text"]
    assert report.num_samples == 1
    assert "columns" not in json.loads((tmp_path / "d" / "drop.json").read_bytes())


def test_one_column_may_name_files_of_several_modalities(store: Store, settings: Settings, tmp_path: Path) -> None:
    index = jsonl({"path": "a.png", "sentence": "x"}, {"path": "b.wav"})
    folder = make_folder(tmp_path / "d", {"index.jsonl": index, "a.png": png(), "b.wav": sound()})
    rows = frozen_rows(store, settings, folder)
    assert picked(rows, "key", "has_text", "has_image", "has_audio") == [
        ("a.png", True, True, False), ("b.wav", False, False, True),
    ]  # fmt: skip


def test_a_path_that_names_no_media_is_metadata(tmp_path: Path) -> None:
    rows = [{"id": "1", "text": "a", "path": "http://x/a.png"}, {"id": "2", "text": "b", "path": "notes.docx"}]
    report = created(tmp_path / "d", {"index.jsonl": jsonl(*rows)})
    assert notes(report) == ["column path is kept as metadata"]
    assert report.num_samples == 2


# What leaves nothing.


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"index.csv": b"id,image\n1,gone.png\n"}, "0 samples are left: all 1 samples are refused"),
        ({"index.jsonl": b"\n"}, "0 samples are left: its objects hold none"),
    ],
)
def test_what_leaves_no_sample_is_unusable(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    report = created(tmp_path / "d", files)
    assert report.num_samples == 0
    assert report.problems[-1].is_fatal
    assert report.problems[-1].message.startswith(message)
