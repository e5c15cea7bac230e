"""The terms of a line of releases: all of them hold, whatever the line's length, and one record tells them."""

import pytest

from mm_assets.errors import GateError
from mm_assets.releases.opening import require_terms
from mm_assets_tests.release.conftest import SOURCE_YAML


def num_reads(store, call):
    """How many objects ``call`` reads."""
    keys = []

    def note(params, **_):
        keys.append(params["url_path"])

    store.client.meta.events.register("before-call.s3.GetObject", note)
    try:
        call()
    finally:
        store.client.meta.events.unregister("before-call.s3.GetObject", note)
    return len(keys)


def test_terms_of_a_long_line_cost_what_those_of_a_short_one_do(world, sample):
    parent, costs = None, []
    for number in range(4):
        parent = world.release(
            [sample(f"k{number}", drop=f"d{number}")], release=f"r{number}", num_shards=1, parent=parent,
            source_yaml=SOURCE_YAML.replace(b"owner: Ada", f"owner: Ada {number}".encode()),
        )  # fmt: skip
        spec = world.spec("x", 1, parent=parent)
        costs.append(num_reads(world.store, lambda spec=spec: require_terms(world.store, spec)))
    assert len(set(costs)) == 1
    assert len(world.document(parent, "record.json")["sources"]) == 4


def test_a_description_that_an_ancestor_pinned_is_still_judged(world, sample):
    strict = SOURCE_YAML.replace(b"allowed_uses: [research]", b"allowed_uses: [teaching]")
    first = world.release([sample("a")], num_shards=1, source_yaml=strict)
    middle = world.release([sample("b", drop="d2")], release="r2", num_shards=1, parent=first)
    spec = world.spec("r3", 1, parent=middle, use="research")
    with pytest.raises(GateError, match="source zoo: its allowed uses are teaching, and research is not among them"):
        require_terms(world.store, spec)
    record = world.document(middle, "record.json")
    assert {entry["source_digest"] for entry in record["drops"]} == {entry["digest"] for entry in record["sources"]}
