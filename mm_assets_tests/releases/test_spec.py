"""The spec: what may stand in it, and reading one that is damaged or that the first version wrote."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from mm_assets.errors import ObjectCorruptError, ObjectMissingError, SpecError
from mm_assets.identity.canonical import canonical_json, digest_bytes
from mm_assets.release.config import FreezeConfig
from mm_assets.releases.spec import ReleaseSpec, read_spec, spec_key, write_spec
from mm_assets.store.objects import Store

A, B = digest_bytes(b"a"), digest_bytes(b"b")
DOCUMENT: dict[str, Any] = {
    "schema": "mm.release/2",
    "release": "r1",
    "drops": [{"source": "zoo", "drop": "d1", "digest": A, "source_digest": B}],
    "parent": None,
    "data_of": None,
    "exclusions": [],
    "policy": {"name": "all", "sql": "true"},
    "rules": {"snapshot.yaml": A},
    "encoder": {"kind": "none", "digest": B},
    "seed": 7,
    "num_shards": 2,
    "configuration": {"name": "x", "release": {"labels": "required"}},
}
FIRST: dict[str, Any] = {name: value for name, value in DOCUMENT.items() if name not in ("data_of", "rules")} | {
    "schema": "mm.release/1",
    "recipe": {"name": "x", "training": {"log_every": 5, "budget_usd": None, "steps": 9}, "encoder": {"size": 3}},
}
del FIRST["configuration"]


def test_a_spec_survives_being_written_and_read(store: Store) -> None:
    spec = ReleaseSpec.model_validate(DOCUMENT)
    assert write_spec(store, spec) == read_spec(store, "r1") == spec
    assert spec.encode() == canonical_json(DOCUMENT)
    assert spec.shards() == ["0000", "0001"]


@pytest.mark.parametrize("field", sorted(DOCUMENT))
def test_no_field_of_a_spec_has_a_default(field: str) -> None:
    with pytest.raises(ValidationError, match="Field required"):
        ReleaseSpec.model_validate({name: value for name, value in DOCUMENT.items() if name != field})


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"drops": []},
        {"num_shards": 0},
        {"num_shards": -1},
        {"seed": "7"},
        {"data_of": {"release": "r0", "digest": A}},
        {"data_of": {"release": "r0", "digest": A}, "drops": []},
        {"data_of": {"release": "r0", "digest": "sha256:xyz"}, "drops": [], "num_shards": 0},
    ],
    ids=str,
)
def test_a_spec_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ReleaseSpec.model_validate(DOCUMENT | change)


def test_a_release_that_is_not_open_is_missing(store: Store) -> None:
    with pytest.raises(ObjectMissingError, match="release r9: is not open"):
        read_spec(store, "r9")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "is not a release spec"),
        (b"[]", "is not a release spec"),
        (b"{}", "schema: Field required"),
        (b'{"schema":"mm.release/1"}', "is not a release spec"),
        (canonical_json(DOCUMENT | {"seed": "x"}), "seed: Input should be a valid integer"),
        (canonical_json(DOCUMENT).replace(b'"configuration":{', b'"configuration":{"\\ud800":1,'), "surrogates"),
        (canonical_json(DOCUMENT | {"release": "r2"}), "is the spec of another release: expected r1, got r2"),
    ],
)
def test_a_key_that_holds_something_else_is_corrupt(store: Store, data: bytes, named: str) -> None:
    store.create_key(spec_key("r1"), data)
    with pytest.raises(ObjectCorruptError, match=rf"releases/r1/spec\.json: .*{named}"):
        read_spec(store, "r1")


def test_a_section_is_read_as_its_class() -> None:
    spec = ReleaseSpec.model_validate(DOCUMENT)
    assert spec.config("release", FreezeConfig) == FreezeConfig(labels="required")
    for configuration in ({}, {"release": {"labels": "sometimes"}}):
        with pytest.raises(SpecError, match="release r1: configuration section release is unusable"):
            spec.model_copy(update={"configuration": configuration}).config("release", FreezeConfig)


def test_a_spec_of_the_first_version_is_read_and_may_be_opened_again(store: Store) -> None:
    store.create_key(spec_key("r1"), canonical_json(FIRST))
    spec = read_spec(store, "r1")
    assert (spec.data_of, spec.rules, spec.drops[0].digest) == (None, {}, A)
    assert spec.configuration == {
        "name": "x", "training": {"steps": 9}, "encoder": {"size": 3},
        "placement": {"log_every": 5, "budget_usd": None},
    }  # fmt: skip
    with_rules = spec.model_copy(update={"rules": {"snapshot.yaml": A}})
    assert write_spec(store, with_rules) == spec, "the first version pinned no rules: that is no difference"
    current = store.read_key(spec_key("r1"))
    assert current is not None
    assert json.loads(current.data) == FIRST, "reading translates, nothing is rewritten"
