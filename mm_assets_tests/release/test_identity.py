"""What decides a freeze: the data, the policy and the configuration, and nothing that anything is called."""

import pytest

from mm_assets.errors import CheckError
from mm_assets.release.config import FreezeConfig
from mm_assets.release.contamination import KEYS_FILE
from mm_assets.release.inputs import PARENT_OUTPUTS
from mm_assets.release.kept import kept_by
from mm_assets.release.shards import places

NAME = "spectacular-release"


def test_no_output_and_no_fact_names_a_release(world, sample):
    parent = world.release([sample(f"a{i}") for i in range(10)], release=f"{NAME}-parent")
    child = world.release([sample(f"b{i}", drop="d2") for i in range(10)], release=NAME, parent=parent)
    for committed in (parent, child):
        for output in committed.manifest.outputs:
            assert NAME.encode() not in world.store.get_bytes(output.digest), output.name
        assert NAME not in str(committed.manifest.stats)
    rows = world.rows(child)
    assert not any(NAME in str(row) for row in rows.values()), "Parquet may be compressed: its values are read as well"


def test_same_data_under_another_name_have_the_same_content(world, sample):
    rows = [sample(f"k{i:02d}", group=f"g{i % 5}") for i in range(20)]
    first, second = world.release(rows, release="r1"), world.release(rows, release="other")
    assert first.manifest.content == second.manifest.content
    assert first.manifest.fingerprint == second.manifest.fingerprint


def test_every_object_that_is_read_is_an_input(world, sample):
    made = world.shard("r1", "0000", [sample("a")])
    parent = world.freeze(world.spec("r1", 1))
    world.shard("r2", "0000", [sample("b")])
    action = world.action(world.spec("r2", 1, parent=parent))
    assert [entry.asset for entry in action.inputs] == [
        "snapshot", "features", "embeddings", "drop", "source", "dataset_release",
    ]  # fmt: skip
    pinned = action.inputs[-1]
    assert (pinned.manifest, pinned.role) == (parent.manifest_digest, "parent")
    assert [item.digest for item in pinned.outputs] == [
        parent.manifest.output(n).digest for n in (*PARENT_OUTPUTS, KEYS_FILE, *kept_by(parent.manifest))
    ]
    first = world.action(world.spec("r1", 1))
    assert [entry.manifest for entry in first.inputs[:3]] == [committed.manifest_digest for committed in made.values()]


def test_policy_configuration_seed_and_exclusions_enter_the_fingerprint(world, sample):
    world.shard("r1", "0000", [sample("a")])
    found = [
        world.action(world.spec("r1", 1, **change)).fingerprint
        for change in ({}, {"policy": {"name": "p", "sql": "TRUE"}}, {"seed": 8}, {"exclusions": ["zoo/d1/a"]})
    ]
    world.config = FreezeConfig(min_linked_text_chars=49)
    found.append(world.action(world.spec("r1", 1)).fingerprint)
    assert len(set(found)) == 5
    world.shard("r1", "0000", [sample("other")])
    assert world.action(world.spec("r1", 1)).fingerprint not in found


def test_experiment_has_the_inputs_of_the_release_whose_data_it_uses(world, sample):
    base = world.release([sample(f"k{i}", image_width=i) for i in range(20)])
    same = world.action(world.spec("x", 0, data_of=base))
    assert same.fingerprint == base.manifest.fingerprint
    other = world.freeze(world.spec("x", 0, data_of=base, policy={"name": "wide", "sql": "image_width > 9"}))
    assert list(other.manifest.inputs) == list(base.manifest.inputs)
    assert other.manifest.stats["rows_out"] == 10
    assert [p.path for p in places(world.store, other.manifest)] == ["r1/0000", "r1/0001"]
    assert all(finding.passed for finding in world.findings(other.manifest).values())


def test_experiment_on_a_child_keeps_the_parent_and_its_splits(world, sample):
    parent = world.release([sample(f"a{i:02d}") for i in range(20)])
    child = world.release([sample(f"b{i:02d}", drop="d2") for i in range(20)], release="r2", parent=parent)
    again = world.freeze(world.spec("x", 0, data_of=child, policy={"name": "all", "sql": "TRUE"}))
    assert {k: row["split"] for k, row in world.rows(again).items()} == {
        k: row["split"] for k, row in world.rows(child).items()
    }


def test_pin_of_something_else_than_a_frozen_release_is_refused(world, sample):
    made = world.shard("r1", "0000", [sample("a")])
    for role in ("parent", "data_of"):
        spec = world.spec("r2", 1, **{role: made["features"]})
        world.shard("r2", "0000", [sample("b")])
        with pytest.raises(CheckError, match="expected dataset_release r1, got features r1/0000"):
            world.action(spec)
