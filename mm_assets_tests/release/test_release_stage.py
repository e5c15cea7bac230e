"""The gate in code."""

import pytest

from mm_assets.errors import GateError
from mm_assets.release.config import FreezeConfig
from mm_assets.release.inputs import resolve_dataset_release
from mm_assets.store.manifest import Partition


def resolve(world, spec):
    return resolve_dataset_release(world.store, spec, Partition(release=spec.release), {"torch": "x"})


def test_every_shard_that_is_missing_failed_unchecked_or_stale_is_named_at_once(world, sample):
    world.shard("r1", "0000", [sample("a")])
    failed = world.shard("r1", "0002", [sample("c")])["features"]
    world.accept(failed, passed=False, detail="too many dead letters: 9 of 10.")
    world.shard("r1", "0003", [sample("d")])
    partition = Partition(release="r1", shard="0003")
    world.accept(world.commit("snapshot", partition, {}))
    unchecked = Partition(release="r1", shard="0004")
    world.shard("r1", "0004", [sample("e")])
    world.commit("embeddings", unchecked, {}, [])
    with pytest.raises(GateError) as caught:
        resolve(world, world.spec("r1", 5))
    message = str(caught.value)
    assert message.startswith("dataset_release r1: 6 of 15 shard partitions are not ready: ")
    for named in (
        "snapshot 0001 is missing", "features 0001 is missing", "embeddings 0001 is missing",
        "features 0002 failed its checks (too many dead letters: 9 of 10)",
        "features 0003 is stale (made from another snapshot than the present one)",
        "embeddings 0004 is not checked as it is now",
    ):  # fmt: skip
        assert named in message
    assert "0000" not in message
    assert "\n" not in message


def test_repaired_shard_opens_the_gate(world, sample):
    made = world.shard("r1", "0000", [sample("a")])
    world.accept(made["embeddings"], passed=False, detail="broken")
    with pytest.raises(GateError, match=r"embeddings 0000 failed its checks \(broken\)"):
        resolve(world, world.spec("r1", 1))
    world.accept(made["embeddings"])
    assert len(resolve(world, world.spec("r1", 1)).inputs) == 5


def test_recipe_names_manifests_drops_and_parent_by_digest(world, sample):
    made = world.shard("r1", "0000", [sample("a")])
    parent = world.freeze(world.spec("r1", 1))
    world.shard("r2", "0000", [sample("b")])
    recipe = resolve(world, world.spec("r2", 1, parent=parent))
    assert [entry.asset for entry in recipe.inputs] == [
        "snapshot", "features", "embeddings", "drop", "source", "dataset_release",
    ]  # fmt: skip
    assert recipe.inputs[-1].digest == parent.manifest_digest
    first = resolve(world, world.spec("r1", 1))
    assert [entry.digest for entry in first.inputs[:3]] == [committed.manifest_digest for committed in made.values()]


def test_environment_does_not_enter_the_fingerprint_but_policy_and_config_do(world, sample):
    world.shard("r1", "0000", [sample("a")])
    spec = world.spec("r1", 1)
    same = resolve_dataset_release(world.store, spec, Partition(release="r1"), {})
    assert resolve(world, spec).fingerprint == same.fingerprint
    other = world.spec("r1", 1, policy={"name": "default", "sql": "TRUE"})
    assert resolve(world, other).fingerprint != same.fingerprint
    world.config = FreezeConfig(min_linked_text_chars=49)
    assert resolve(world, world.spec("r1", 1)).fingerprint != same.fingerprint


def test_parent_that_failed_its_checks_or_is_no_release_is_refused(world, sample):
    made = world.shard("r1", "0000", [sample("a")])
    parent = world.freeze(world.spec("r1", 1))
    world.accept(parent, passed=False)
    world.shard("r2", "0000", [sample("b")])
    with pytest.raises(GateError, match="its parent r1 failed its checks"):
        resolve(world, world.spec("r2", 1, parent=parent))
    with pytest.raises(GateError, match="expected dataset_release r1, got features r1/0000"):
        resolve(world, world.spec("r2", 1, parent=made["features"]))
