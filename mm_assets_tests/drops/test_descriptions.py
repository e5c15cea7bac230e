"""What samples are called and described by: depth, ids, repeated names, empty labels, rows that name the index."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mm_assets.drops.check import check_drop
from mm_assets.drops.create import create_drop
from mm_assets.drops.samples import Rejection, Sample, metadata_json
from mm_assets.errors import DropError
from mm_assets.identity.canonical import canonical_json
from mm_assets.settings import Settings
from mm_assets.store.objects import Store
from mm_assets_tests.drops.raw_data import (
    deliver,
    freeze,
    jsonl,
    make_folder,
    open_test_release,
    read_one_tar,
    snapshot_findings,
    tar_bytes,
)


def nested(depth: int) -> bytes:
    """A JSON object of that depth."""
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


def made_of(folder: Path, *members: tuple[str, bytes]) -> Sample | Rejection:
    (made,) = read_one_tar(tar_bytes(members), folder)
    return made


@pytest.mark.parametrize("depth", [65, 330, 480, 600, 100_000])
def test_a_description_nested_too_deep_has_one_reason_everywhere(
    store: Store, settings: Settings, tmp_path: Path, depth: int
) -> None:
    made = made_of(tmp_path, ("x.txt", b"x"), ("x.json", nested(depth)))
    assert isinstance(made, Rejection)
    assert made.reason == ("metadata_too_deep" if depth < 50_000 else "too_large")
    row = b'{"id":"deep","text":"x","more":' + nested(depth - 1) + b"}\n"
    folder = make_folder(tmp_path / "d", {"index.jsonl": jsonl({"id": "ok", "text": "x"}) + row})
    deliver(store, folder)
    assert [problem.message for problem in check_drop(folder).problems] == [
        "row is nested deeper than 64 levels (metadata_too_deep)"
    ]
    manifest = freeze(store, open_test_release(store, ("src", "d1")), "0000", settings).manifest
    assert manifest.stats["reasons"] == {"metadata_too_deep": 1}
    loose = make_folder(tmp_path / "loose", {"x.txt": b"x", "x.json": nested(depth)})
    with pytest.raises(DropError, match=r"x\.json: the description is nested deeper than 64 levels"):
        create_drop(loose, "src", "d2")


def test_the_deepest_description_that_is_allowed_goes_through(tmp_path: Path) -> None:
    made = made_of(tmp_path, ("x.txt", b"x"), ("x.json", nested(64)))
    assert isinstance(made, Sample)
    assert made.metadata.encode() == nested(64)


def test_a_parquet_column_nested_too_deep_is_named(tmp_path: Path) -> None:
    kind: pa.DataType = pa.int32()
    for _ in range(65):
        kind = pa.struct([("a", kind)])
    table = pa.table({"id": ["a"], "deep": pa.nulls(1, kind)})
    pq.write_table(table, _folder(tmp_path))
    with pytest.raises(DropError, match="column deep: is nested deeper than 64 levels"):
        create_drop(tmp_path / "d", "src", "d1")


def _folder(tmp_path: Path) -> Path:
    (tmp_path / "d").mkdir()
    return tmp_path / "d" / "index.parquet"


SOUND = [
    "\U0001f469\u200d\U0001f4bb",  # a technologist
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, with a non-joiner
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # the flag of England
    "\u2764\ufe0f",
    "\u0915\u094d\u200d\u0937",
    "\u65e5\u3000\u672c",
    "\U0001fae8",  # newer than the Unicode of this Python
]
UNSOUND = ["a\u202eb", "a\u2066b", "a\x00b", "a\nb", "a\x7fb", "a\u200eb", "a\u2028b", "a\u00adb", "a\ufeffb", "\ue000"]


@pytest.mark.parametrize("key", SOUND)
def test_ids_with_joiners_are_accepted(key: str, tmp_path: Path) -> None:
    made = made_of(tmp_path, (f"{key}.txt", b"x"))
    assert isinstance(made, Sample)
    assert made.key == key


@pytest.mark.parametrize("key", [*UNSOUND, "a\U000e0041b"])
def test_ids_with_characters_that_cannot_be_seen_are_refused(
    key: str, store: Store, settings: Settings, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "d", {"index.jsonl": jsonl({"id": key, "text": "x"})})
    create_drop(folder, "src", "d1")
    problem, nothing_left = check_drop(folder).problems
    assert nothing_left.message.startswith("0 samples are left: all 1 samples are refused")
    assert "(bad_id)" in problem.message
    assert "which cannot be seen" in problem.message


def test_a_row_that_names_the_index_is_its_own_dead_letter(store: Store, settings: Settings, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": "ok", "text": "x"}, {"id": "odd", "image": "index.jsonl"}]
    deliver(store, make_folder(tmp_path / "d", {"index.jsonl": jsonl(*rows)}))
    manifest = freeze(store, open_test_release(store, ("src", "d1")), "0000", settings).manifest
    assert (manifest.stats["rows_out"], manifest.stats["reasons"]) == (1, {"bad_row": 1})


def test_two_columns_of_one_name_are_one_sentence(tmp_path: Path) -> None:
    columns = [pa.array(["a"]), pa.array(["x"]), pa.array(["y"])]
    pq.write_table(pa.Table.from_arrays(columns, names=["id", "text", "text"]), _folder(tmp_path))
    with pytest.raises(DropError, match="column text: is given twice; one column of a name is expected"):
        create_drop(tmp_path / "d", "src", "d1")


def test_a_name_given_twice_in_a_row_is_that_rows_problem(tmp_path: Path) -> None:
    index = jsonl({"id": "ok", "text": "x"}) + b'{"id": "two", "text": "a", "text": "b"}\n'
    folder = make_folder(tmp_path / "d", {"index.jsonl": index})
    create_drop(folder, "src", "d1")
    report = check_drop(folder)
    assert report.num_samples == 1
    assert [str(problem) for problem in report.problems] == ["index.jsonl:2: row gives text twice (bad_row)"]


def test_an_empty_label_is_no_label(store: Store, settings: Settings, tmp_path: Path) -> None:
    index = jsonl({"id": "a", "text": "x", "label": "", "language": "", "group": ""}, {"id": "b", "text": "y"})
    tar = tar_bytes([("c.txt", b"c"), ("c.json", json.dumps({"label": ""}).encode()), ("d.txt", b"d"), ("d.cls", b"")])
    deliver(store, make_folder(tmp_path / "i", {"index.jsonl": index}), source="one")
    deliver(store, make_folder(tmp_path / "t", {"a.tar": tar}), source="two")
    manifest = freeze(store, open_test_release(store, ("one", "d1"), ("two", "d1")), "0000", settings).manifest
    rows = pq.read_table(store.fetch(manifest.output("samples.parquet").digest, tmp_path / "o"))
    assert (
        rows.select(["label", "language", "group"]).to_pylist() == [dict.fromkeys(("label", "language", "group"))] * 4
    )
    assert all(finding.passed for finding in snapshot_findings(store, manifest))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2.0**53, '"9007199254740992.0"'),
        (-(2.0**60), '"-1.152921504606847e+18"'),
        (1e300, '"1e+300"'),
        (2**53, '"9007199254740992"'),
        (10**400, f'"{10**400}"'),
        (2.0**53 - 1, "9007199254740991"),
        (0.5, "0.5"),
        (math.inf, "null"),
    ],
)
def test_a_number_that_canonical_json_cannot_hold_is_kept_as_text(value: float, expected: str) -> None:
    made = metadata_json({"n": value, "deep": [{"n": value}]})
    assert made == f'{{"deep":[{{"n":{expected}}}],"n":{expected}}}'
    assert metadata_json(json.loads(made)) == canonical_json(json.loads(made)).decode() == made
