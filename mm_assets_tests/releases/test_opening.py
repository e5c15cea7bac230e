"""Opening a release pins everything by digest, once."""

from pathlib import Path

import pytest

from mm_assets.drops.record import parse_drop
from mm_assets.drops.source import parse_source, source_template
from mm_assets.errors import CommitConflictError, DropError, ObjectMissingError, SpecError
from mm_assets.releases.opening import open_release
from mm_assets.releases.spec import ReleaseSpec, read_spec
from mm_assets.store.objects import Store
from mm_assets_tests.drops.raw_data import deliver, make_folder, open_test_release, tar_bytes


def a_drop(store: Store, tmp_path: Path, drop: str = "d1") -> None:
    deliver(store, make_folder(tmp_path / drop, {"a.tar": tar_bytes([("x.txt", drop.encode())])}), drop=drop)


def open_with(store: Store, drops: list[tuple[str, str]], *, parent: str | None = None, seed: int = 1) -> ReleaseSpec:
    return open_release(
        store,
        release="r1",
        drops=drops,
        parent=parent,
        policy={"name": "all", "sql": "true"},
        recipe={"name": "x"},
        encoder={"kind": "none"},
        seed=seed,
        num_shards=2,
    )


def test_a_release_pins_drop_and_source_by_digest(store: Store, tmp_path: Path) -> None:
    a_drop(store, tmp_path)
    spec = open_test_release(store, ("src", "d1"))
    pin = spec.drops[0]
    assert store.get_bytes(pin.digest) == (tmp_path / "d1" / "drop.json").read_bytes()
    assert store.get_bytes(pin.source_digest) == (tmp_path / "d1" / "source.yaml").read_bytes()
    assert read_spec(store, "r1") == spec


def test_opening_a_release_again_alike_is_no_error_and_otherwise_is(store: Store, tmp_path: Path) -> None:
    a_drop(store, tmp_path)
    assert open_with(store, [("src", "d1")]) == open_with(store, [("src", "d1")])
    with pytest.raises(CommitConflictError, match="release r1: exists already with another spec"):
        open_with(store, [("src", "d1")], seed=2)


def test_a_drop_that_has_not_arrived_is_named(store: Store, tmp_path: Path) -> None:
    a_drop(store, tmp_path)
    with pytest.raises(DropError, match=r"drop src/d2: is not in the store: expected s3://.*/raw/src/d2/drop\.json"):
        open_with(store, [("src", "d1"), ("src", "d2")])


@pytest.mark.parametrize("drops", [[], [("src", "d1"), ("src", "d1")]])
def test_no_drop_or_one_named_twice_is_refused(store: Store, tmp_path: Path, drops: list[tuple[str, str]]) -> None:
    a_drop(store, tmp_path)
    with pytest.raises(SpecError, match="release r1: expected one or more drops, each once"):
        open_with(store, drops)


def test_a_parent_has_to_exist(store: Store, tmp_path: Path) -> None:
    a_drop(store, tmp_path)
    with pytest.raises(ObjectMissingError, match="r0"):
        open_with(store, [("src", "d1")], parent="r0")


def test_a_drop_json_that_describes_another_drop_is_refused(store: Store, tmp_path: Path) -> None:
    a_drop(store, tmp_path)
    store.create_key("raw/src/d9/drop.json", (tmp_path / "d1" / "drop.json").read_bytes())
    with pytest.raises(DropError, match="expected src/d9, got src/d1"):
        open_with(store, [("src", "d9")])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{}", "here: schema: Field required"),
        (b"not json", "here: document: Invalid JSON"),
        (b'{"schema":"mm.drop/2"}', "here: schema: Input should be 'mm.drop/1'"),
    ],
)
def test_a_broken_drop_json_names_the_field(data: bytes, message: str) -> None:
    with pytest.raises(DropError, match=message):
        parse_drop(data, "here")


@pytest.mark.parametrize("key", ["../a.tar", "/a.tar", "a//b.tar", "./a.tar", "drop.json", ""])
def test_an_object_key_that_leaves_the_drop_is_refused(key: str) -> None:
    entry = f'{{"key":"{key}","size_bytes":1,"sha256":"{"0" * 64}"}}'
    data = (
        '{"schema":"mm.drop/1","source":"s","drop":"d","captured_from":null,"captured_to":null,'
        f'"format":"webdataset","objects":[{entry}],"annotation":{{}}}}'
    )
    with pytest.raises(DropError, match=r"objects\.0\.key: .* is no file inside the drop"):
        parse_drop(data.encode(), "here")


def test_the_source_template_is_valid_and_declares_nothing() -> None:
    source = parse_source(source_template("src"), "here")
    assert source.source == "src"
    assert source.is_undeclared
    assert source.approval.status == "pending"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("owner: not declared", "owner: 3", "here: line 6: owner: Input should be a valid string"),
        ("owner: not declared\n", "", "here: line 3: owner: Field required"),
        ("licence:", "license:", "here: line .*: licen.e: "),
        ("status: pending", "status: maybe", "here: line 17: approval.status: Input should be 'approved'"),
        ("schema: mm.source/1", "schema: [", "here: line .*: is not valid YAML"),
    ],
)
def test_a_bad_source_description_names_line_and_field(old: str, new: str, message: str) -> None:
    text = source_template("src").decode()
    assert old in text
    with pytest.raises(DropError, match=message):
        parse_source(text.replace(old, new).encode(), "here")
