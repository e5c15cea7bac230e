"""Opening a release pins everything by digest, once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mm_assets.drops.record import parse_drop
from mm_assets.drops.source import parse_source, source_template
from mm_assets.errors import CommitConflictError, DropError, MmError, SpecError, UsageError
from mm_assets.identity.canonical import digest_bytes
from mm_assets.releases.opening import open_release
from mm_assets.releases.spec import ReleasePin, ReleaseSpec, list_releases, read_spec
from mm_assets.store.objects import Store
from mm_assets_tests.drops.raw_data import deliver, make_folder, open_test_release, tar_bytes

RULES, OTHER_RULES, MANIFEST = (digest_bytes(name) for name in (b"rules", b"other rules", b"manifest"))


def a_drop(store: Store, tmp_path: Path, drop: str = "d1") -> None:
    deliver(store, make_folder(tmp_path / drop, {"a.tar": tar_bytes([("x.txt", drop.encode())])}), drop=drop)


def open_with(store: Store, drops: Sequence[tuple[str, str]], **values: Any) -> ReleaseSpec:
    arguments: dict[str, Any] = {
        "release": "r1",
        "policy": {"name": "all", "sql": "true"},
        "rules": {"snapshot.yaml": RULES},
        "configuration": {"name": "x", "training": {"steps": 7}},
        "encoder": {"kind": "none", "digest": digest_bytes(b"none")},
        "seed": 1,
        "num_shards": 2,
    }
    return open_release(store, drops=drops, **(arguments | values))


def test_a_release_pins_drop_and_source_by_digest(store: Store, tmp_path: Path) -> None:
    a_drop(store, tmp_path)
    spec = open_test_release(store, ("src", "d1"))
    pin = spec.drops[0]
    assert store.get_bytes(pin.digest) == (tmp_path / "d1" / "drop.json").read_bytes()
    assert store.get_bytes(pin.source_digest) == (tmp_path / "d1" / "source.yaml").read_bytes()
    assert read_spec(store, "r1") == spec


def test_opening_a_release_again_alike_is_idempotent(store: Store, tmp_path: Path) -> None:
    a_drop(store, tmp_path)
    first = open_with(store, [("src", "d1")], exclusions=["b", "a"])
    assert open_with(store, [("src", "d1")], exclusions=["a", "b", "a"]) == first
    assert list_releases(store) == ["r1"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 2}, "seed: expected 1, got 2"),
        ({"num_shards": 3}, "num_shards: expected 2, got 3"),
        ({"exclusions": ["x"]}, r'exclusions: expected \[\], got \["x"\]'),
        ({"policy": {"name": "all", "sql": "false"}}, 'policy.sql: expected "true", got "false"'),
        ({"rules": {"snapshot.yaml": OTHER_RULES}}, f'rules.snapshot.yaml: expected "{RULES}", got "{OTHER_RULES}"'),
        (
            {"configuration": {"name": "x", "training": {"steps": 8}}},
            "configuration.training.steps: expected 7, got 8",
        ),
        ({"configuration": {"name": "y"}}, 'configuration.name: expected "x", got "y"; configuration.training: '),
        ({"parent": ReleasePin(release="r0", digest=MANIFEST)}, "parent: expected null, got "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_opening_a_release_again_otherwise_names_the_fields_that_differ(
    store: Store, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    a_drop(store, tmp_path)
    first = open_with(store, [("src", "d1")])
    with pytest.raises(CommitConflictError, match="release r1: is open already with another spec: " + named):
        open_with(store, [("src", "d1")], **change)
    assert read_spec(store, "r1") == first


@pytest.mark.parametrize("name", ["", "../r1", "a b", "r1/x", "x" * 300])
def test_an_unusable_name_is_refused(store: Store, tmp_path: Path, name: str) -> None:
    a_drop(store, tmp_path)
    with pytest.raises(UsageError, match="is not a valid name"):
        open_with(store, [("src", "d1")], release=name)
    assert list_releases(store) == []


def test_a_drop_that_has_not_arrived_is_named(store: Store, tmp_path: Path) -> None:
    a_drop(store, tmp_path)
    with pytest.raises(DropError, match=r"drop src/d2: is not in the store: expected s3://.*/raw/src/d2/drop\.json"):
        open_with(store, [("src", "d1"), ("src", "d2")])


@pytest.mark.parametrize("drops", [[], [("src", "d1"), ("src", "d1")]])
def test_no_drop_or_one_named_twice_is_refused(store: Store, tmp_path: Path, drops: list[tuple[str, str]]) -> None:
    a_drop(store, tmp_path)
    with pytest.raises(SpecError, match="release r1: expected one or more drops, each once"):
        open_with(store, drops)


@pytest.mark.parametrize(
    ("old", "new", "use", "named"),
    [
        ("status: pending\n  by: not declared", "status: revoked\n  by: Ada", None, "its approval was revoked by Ada"),
        ("consent: not declared", "consent: withdrawn", None, "consent is withdrawn"),
        (
            "retention: not declared",
            "retention: 2020-01-01",
            None,
            r"its retention \(2020-01-01\) was over on 2020-01-01",
        ),
        (
            "  - not declared",
            "  - research",
            "training",
            "its allowed uses are research, and training is not among them",
        ),
    ],
)
def test_a_release_that_a_source_does_not_allow_is_refused_when_it_is_opened(
    store: Store, tmp_path: Path, old: str, new: str, use: str | None, named: str
) -> None:
    described = source_template("src").decode()
    assert old in described
    folder = make_folder(tmp_path / "d", {"a.tar": tar_bytes([("x.txt", b"x")])})
    (folder / "source.yaml").write_text(described.replace(old, new, 1))
    deliver(store, folder)
    with pytest.raises(
        MmError, match=f"^release r1: source src: {named}. Leave these sources out, or ask their owners"
    ):
        open_with(store, [("src", "d1")], use=use)
    assert list_releases(store) == []


def test_an_experiment_has_no_data_of_its_own(store: Store, tmp_path: Path) -> None:
    a_drop(store, tmp_path)
    pin = ReleasePin(release="r0", digest=MANIFEST)
    spec = open_with(store, [], data_of=pin)
    assert (spec.data_of, spec.drops, spec.num_shards, spec.shards()) == (pin, [], 0, [])
    for values in ({"drops": [("src", "d1")]}, {"drops": [], "parent": pin}):
        drops = values.pop("drops")
        with pytest.raises(SpecError, match="an experiment has no drops, no parent and no shards of its own"):
            open_with(store, drops, release="r2", data_of=pin, **values)


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
    with pytest.raises(DropError, match=r"objects\.0: .* is not a file inside the drop"):
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
