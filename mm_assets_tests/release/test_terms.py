"""The terms of a line of releases: all of them hold, whatever the line's length, and one record tells them."""

from datetime import date, timedelta

import pytest

from mm_assets.drops.source import parse_source
from mm_assets.errors import CheckError
from mm_assets.releases.opening import require_terms
from mm_assets.releases.terms import Delivery, judge_terms
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


@pytest.mark.parametrize(
    ("retention", "last"),
    [
        ("P1M", date(2027, 2, 28)),
        ("P1Y1M", date(2028, 2, 29)),
        ("P1M2D", date(2027, 3, 2)),
        ("P10000Y", date.max),
        ("P99999999999D", date.max),
        ("for a while", None),
    ],
)
def test_a_duration_ends_on_a_day_of_the_calendar(world, retention, last):
    source = parse_source(SOURCE_YAML.replace(b"retention: keep", f"retention: {retention}".encode()), "here")
    delivery = Delivery(source=source, captured=date(2027, 1, 31))

    def refused(today):
        return judge_terms(world.store, [delivery], use="research", today=today).refused

    assert refused(last or date.max) == ()
    if last not in (None, date.max):
        assert f"was over on {last}" in refused(last + timedelta(days=1))[0]


def test_uses_that_an_owner_declares_later_ask_for_a_use(world):
    """A release that an older version opened without one, over a source that declared some then, goes on."""
    declared = parse_source(SOURCE_YAML, "here")
    undeclared = parse_source(SOURCE_YAML.replace(b"[research]", b"[not declared]"), "here")
    world.store.create_key("raw/zoo/source.yaml", SOURCE_YAML)

    def refused(source, **options):
        delivery = Delivery(source=source, captured=None)
        return judge_terms(world.store, [delivery], use=None, today=date(2027, 1, 1), **options).refused

    missing = (
        "source zoo: its allowed uses are research, and the release declares none: declare one with --use, or as use "
        "in new_drops.yaml",
    )
    assert refused(undeclared) == refused(declared, is_opening=True) == missing
    assert refused(declared) == ()
    open_to_all = SOURCE_YAML.replace(b"[research]", b"[any]")
    head = world.store.read_key("raw/zoo/source.yaml")
    world.store.replace_key("raw/zoo/source.yaml", open_to_all, head.etag)
    assert refused(parse_source(open_to_all, "here"), is_opening=True) == ()


def test_a_description_that_an_ancestor_pinned_is_still_judged(world, sample):
    strict = SOURCE_YAML.replace(b"allowed_uses: [research]", b"allowed_uses: [teaching]")
    first = world.release([sample("a")], num_shards=1, source_yaml=strict)
    middle = world.release([sample("b", drop="d2")], release="r2", num_shards=1, parent=first)
    spec = world.spec("r3", 1, parent=middle, use="research")
    with pytest.raises(CheckError, match="source zoo: its allowed uses are teaching, and research is not among them"):
        require_terms(world.store, spec)
    record = world.document(middle, "record.json")
    assert {entry["source_digest"] for entry in record["drops"]} == {entry["digest"] for entry in record["sources"]}
