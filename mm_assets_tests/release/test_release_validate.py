"""Validation notices what the freeze would never do."""

from typing import Any

import pyarrow as pa
import pytest

from mm_assets.store.tables import read_parquet, write_parquet


@pytest.fixture
def release(world, sample):
    return world.release([sample(f"k{i:03d}", group=f"g{i // 2}", label=("cat", "dog")[i % 2]) for i in range(40)])


def forged(world, release, change: Any, name: str = "samples.parquet"):
    """Findings about the release with one output replaced."""
    path = world.store.fetch(release.manifest.output(name).digest, world.folder)
    table = pa.Table.from_pylist(change(read_parquet(path).to_pylist()), schema=read_parquet(path).schema)
    digest = world.store.put_file(write_parquet(table, world.folder / "forged"))
    outputs = [o.model_copy(update={"digest": digest}) if o.name == name else o for o in release.manifest.outputs]
    manifest = release.manifest.model_copy(update={"outputs": outputs})
    return {rule: finding for rule, finding in world.findings(manifest).items() if not finding.passed}


def test_group_in_two_splits_fails_with_the_ids(world, release):
    def change(rows):
        rows[0]["split"] = "val" if rows[0]["split"] != "val" else "test"
        return rows

    failed = forged(world, release, change)
    assert failed["no_leakage"].failing_ids == ("zoo/d1/k000", "zoo/d1/k001")


def test_row_that_does_not_exist_fails_with_its_id(world, release):
    failed = forged(world, release, lambda rows: [rows[0] | {"row": 999}, *rows[1:]])
    assert failed["rows_exist"].failing_ids == ("zoo/d1/k000",)


def test_row_that_was_dropped_fails_with_its_id(world, release):
    assert forged(world, release, lambda rows: rows[1:])["rows_exist"].failing_ids == ("zoo/d1/k000",)


def test_empty_split_fails(world, release):
    failed = forged(world, release, lambda rows: [row | {"split": "train"} for row in rows])
    assert "split val, test is empty although 20 groups are selected" in failed["splits_filled"].detail


def test_class_outside_train_fails_with_its_name(world, release):
    def change(rows):
        return [row | {"split": "test"} if row["label"] == "dog" else row for row in rows]

    failed = forged(world, release, change)
    assert failed["classes_in_train"].failing_ids == ("dog",)


def test_id_selected_twice_fails(world, release):
    assert forged(world, release, lambda rows: [*rows, rows[0]])["unique_ids"].failing_ids == ("zoo/d1/k000",)


def test_other_merkle_root_fails(world, release):
    output = release.manifest.output("shards.json")
    data = world.store.get_bytes(output.digest).replace(b'"merkle_root":"sha256:', b'"merkle_root":"sha257:')
    other = output.model_copy(update={"digest": world.store.put_bytes(data)})
    outputs = [other if entry == output else entry for entry in release.manifest.outputs]
    manifest = release.manifest.model_copy(update={"outputs": outputs})
    failed = [finding for finding in world.findings(manifest).values() if not finding.passed]
    assert [finding.rule for finding in failed] == ["merkle_root"]
    assert "sha257:" in failed[0].detail


def test_class_that_cannot_move_to_train_is_named_but_does_not_fail(world, sample):
    release = world.release([sample("a", label="x"), sample("b", label="y"), sample("c", label="z")])
    finding = world.findings(release.manifest)["classes_in_train"]
    assert finding.passed
    assert "2 classes are outside train and none of their groups may move" in finding.detail
