"""Releases that add to another one: by reference, with stable splits, and with their drift measured."""

import base64

import pytest

from mm_assets.release.config import SPLITS
from mm_assets.release.preview import preview
from mm_assets.release.shards import places


def test_no_sample_moves_its_split_when_data_is_added(world, sample):
    parent = world.release([sample(f"m{i:03d}", group=f"g{i % 40}") for i in range(80)])
    before = world.rows(parent)
    added = [sample(f"a{i:03d}", drop="d2", group=f"g{i}", image=f"image m{i:03d}") for i in range(60)]
    child = world.release(added, release="r2", parent=parent)
    after = world.rows(child)
    assert {key: after[key]["split"] for key in before} == {key: row["split"] for key, row in before.items()}
    assert all(after[f"a{i:03d}"]["split"] == before[f"m{i:03d}"]["split"] for i in range(40))
    assert world.findings(child.manifest)["no_leakage"].passed


def test_child_lists_its_parents_shards_by_reference_and_fetches_no_payload(world, sample):
    parent = world.release([sample(f"a{i}") for i in range(10)])
    child = world.release([sample(f"b{i}", drop="d2") for i in range(6)], release="r2", parent=parent)
    document = world.document(child, "shards.json")
    assert [shard["generation"] for shard in document["shards"]] == [0, 0, 1, 1]
    assert [place.path for place in places(world.store, child.manifest)] == ["r1/0000", "r1/0001", "r2/0000", "r2/0001"]
    assert document["shards"][:2] == world.document(parent, "shards.json")["shards"]
    assert child.manifest.stats["rows_in"] == 16
    assert (world.rows(child)["a0"]["shard"], world.rows(child)["b1"]["shard"]) == (0, 3)
    assert world.document(child, "record.json")["parent"] == world.document(parent, "shards.json")["merkle_root"]
    assert all(finding.passed for finding in world.findings(child.manifest).values())


def test_same_drop_in_parent_and_child_is_selected_once(world, sample):
    rows = [sample(f"k{i}") for i in range(8)]
    parent = world.release(rows)
    child = world.release(rows, release="r2", parent=parent)
    assert child.manifest.stats["rows_out"] == 8
    assert world.document(child, "stats.json")["reasons"] == {"duplicate_id": 8}


def test_sample_that_reveals_a_leak_is_left_out_and_stays_out(world, sample):
    parent = world.release([sample(f"k{i:03d}") for i in range(60)])
    splits = {split: next(k for k, row in world.rows(parent).items() if row["split"] == split) for split in SPLITS}
    bridge = sample("bridge", image=f"image {splits['train']}", audio=f"audio {splits['test']}", drop="d2")
    rows = [bridge, sample("friend", image=f"image {splits['test']}", drop="d2")]
    child = world.release(rows, release="r2", parent=parent)
    frozen = world.rows(child)
    assert (frozen["bridge"]["selected"], frozen["bridge"]["reasons"]) == (False, "leakage")
    assert (frozen["friend"]["selected"], frozen["friend"]["split"]) == (True, "test")
    assert world.findings(child.manifest)["no_leakage"].passed
    grandchild = world.release([sample("late", audio="audio bridge", drop="d3")], release="r3", parent=child)
    again = world.rows(grandchild)
    assert again["bridge"]["reasons"] == "leakage"
    assert {key: again[key]["split"] for key in frozen} == {key: row["split"] for key, row in frozen.items()}
    assert world.findings(grandchild.manifest)["no_leakage"].passed


def test_drift_of_added_samples_is_measured_and_only_warns(world, sample):
    parent = world.release([sample(f"a{i:03d}", language="en", sharpness=i / 100) for i in range(60)])
    added = [sample(f"b{i:03d}", drop="d2", language="de", sharpness=5.0) for i in range(30)]
    child = world.release(added, release="r2", parent=parent)
    drift = world.document(child, "stats.json")["drift"]
    assert (drift["num_before"], drift["num_added"]) == (60, 30)
    assert drift["fields"]["language"]["total_variation"] == 1.0
    assert drift["fields"]["label"]["total_variation"] == 0.0
    assert "language" in drift["warnings"]
    assert "sharpness" in drift["warnings"]
    finding = world.findings(child.manifest)["drift"]
    assert finding.passed
    assert "language" in finding.detail
    shown = preview(world.store, child.manifest)
    assert "Drift of 30 added samples against the parent's 60" in shown
    drawn = [base64.b64decode(part.split(")")[0]).decode() for part in shown.split("data:image/svg+xml;base64,")[1:]]
    assert len(drawn) == 2 + 2
    assert ["sharpness" in chart for chart in drawn] == [False, False, True, True]
    assert "above limit" in drawn[2]
    assert len(shown) < 40_000


def test_same_distribution_does_not_warn(world, sample):
    parent = world.release([sample(f"a{i:03d}", sharpness=i % 20) for i in range(100)])
    child = world.release(
        [sample(f"b{i:03d}", drop="d2", sharpness=i % 20) for i in range(100)], release="r2", parent=parent
    )
    assert world.document(child, "stats.json")["drift"]["warnings"] == []


@pytest.mark.parametrize("name", ["r0", "r2", "a", "zzz"])
def test_original_is_the_member_of_the_oldest_release_whatever_the_names(world, sample, name):
    twins = {"text": "t", "image": "i", "audio": "a"}
    parent = world.release([sample("m", **twins)])
    child = world.release([sample("a", drop="d2", **twins)], release=name, parent=parent)
    rows = world.rows(child)
    assert [key for key, row in rows.items() if row["selected"]] == ["m"]
    assert rows["a"]["duplicate_of"] == "zoo/d1/m"
    grandchild = world.release([sample("0", drop="d3", **twins)], release=f"{name}-0", parent=child)
    assert [key for key, row in world.rows(grandchild).items() if row["selected"]] == ["m"]


def test_lineage_has_the_same_content_whatever_its_releases_are_called(world, sample):
    def line(*names):
        parent, committed = None, []
        for number, name in enumerate(names):
            rows = [sample(f"{n}", drop=f"d{number}", image=f"image {n}", group=f"g{n % 4}") for n in range(8)]
            parent = world.release(rows, release=name, **({"parent": parent} if parent else {}))
            committed.append(parent)
        return committed

    first, second = line("r1", "r2", "r3"), line("z", "m", "a")
    for one, other in zip(first, second, strict=True):
        assert one.manifest.content == other.manifest.content
        assert one.manifest.fingerprint == other.manifest.fingerprint
        assert one.manifest_digest != other.manifest_digest
