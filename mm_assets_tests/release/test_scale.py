"""How the freeze works on many rows: in parts, by several threads, in batches, and with the same bytes."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mm_assets.modalities.table import aspect
from mm_assets.release import generations, links, near_sets, rows
from mm_assets.release.dedup import by_bucket, components, shared_keys
from mm_assets.release.freeze import compute_dataset_release
from mm_assets.release.rows import load_rows
from mm_assets.release.shards import own_shards
from mm_assets.release.splits import draw, draws
from mm_assets.store.job import Job
from mm_assets.store.tables import ROW_GROUP_ROWS, write_batches, write_parquet
from mm_assets_tests.release.drawings import picture


def drawn(sample, count):
    """Rows with equal pictures, nearly equal ones, groups and two rows of one id."""
    rows = [
        sample(
            f"k{i:03d}",
            image=f"image {i // 2}",
            group=f"g{i // 5}" if i % 3 == 0 else None,
            label=("cat", "dog", "owl")[i % 3],
            image_signature=picture(i % 20, shade=2 * (i // 20)),
        )
        for i in range(count)
    ]
    return [*rows, sample("k000", text="another text"), sample('with "quotes" \\ and ü', label="cat")]


@pytest.mark.parametrize("buckets", [4, 64])
def test_a_freeze_in_buckets_writes_the_same_bytes(world, sample, buckets, monkeypatch):
    whole = world.release(drawn(sample, 40))
    action = world.action(world.spec("r1", 2))
    folder = world.folder / "parts"
    folder.mkdir()
    monkeypatch.setattr(links, "THREADS", 3)
    monkeypatch.setattr(generations, "CHUNK", 11)
    monkeypatch.setattr(near_sets, "CHUNK", 5)
    monkeypatch.setattr(rows, "INSERT_ROWS", 7)
    monkeypatch.setattr(rows, "BATCH_ROWS", 3)
    job = Job(store=world.store, action=action, workdir=folder, placement={"release_buckets": buckets})
    digests = {file.name: world.store.put_file(file.path) for file in compute_dataset_release(job).files}
    assert digests == {output.name: output.digest for output in whole.manifest.outputs}


def test_rows_are_in_the_order_of_shards_with_their_signatures(world, sample, monkeypatch):
    monkeypatch.setattr(rows, "INSERT_ROWS", 7)
    monkeypatch.setattr(rows, "BATCH_ROWS", 3)
    given = drawn(sample, 30)[:30]
    world.release(given, num_shards=3)
    shards = own_shards(world.action(world.spec("r1", 3)).inputs, generation=0)
    folder = world.folder / "rows"
    folder.mkdir()
    with load_rows(world.store, shards, folder) as loaded:
        found = loaded.database.execute("SELECT position, shard, row, id FROM samples").fetchall()
        assert [row[0] for row in found] == list(range(len(given)))
        assert [loaded.starts[shard] + row for _, shard, row, _ in found] == list(range(len(given)))
        positions = loaded.signatures.positions("image")
        stored = loaded.signatures.path("image").read_bytes()
    by_id = {row["id"]: row.get("image_signature") for row in given}
    expected = [(row[0], by_id[row[3]]) for row in found if by_id[row[3]] is not None]
    size = aspect("image", "nearness").NUM_BYTES
    assert positions.tolist() == [position for position, _ in expected]
    assert [stored[i * size : (i + 1) * size] for i in range(len(positions))] == [value for _, value in expected]


@pytest.mark.parametrize("buckets", [1, 2, 16])
def test_shared_keys_are_those_of_comparing_every_row(world, sample, buckets):
    world.release([sample(f"k{i:02d}", group=f"g{i % 7}" if i % 4 else None) for i in range(30)], num_shards=1)
    shards = own_shards(world.action(world.spec("r1", 1)).inputs, generation=0)
    folder = world.folder / "keys"
    folder.mkdir()
    with load_rows(world.store, shards, folder) as loaded:
        found, keys = shared_keys(loaded.database, ['"group"', "label"], buckets=buckets)
        by_group = loaded.database.execute('SELECT position, "group" FROM samples').fetchall()
    groups = [{position for position, group in by_group if group == f"g{number}"} for number in range(7)]
    expected = [*groups, {position for position, _ in by_group}]
    assert sorted(map(sorted, ({*found[keys == key].tolist()} for key in np.unique(keys)))) == sorted(
        map(sorted, expected)
    )
    assert not components(30, found, keys).any()


def test_buckets_are_a_power_of_two():
    with pytest.raises(ValueError, match="expected a power of two, got 3"):
        list(by_bucket(np.zeros(1, np.uint64), 3))


def test_draws_of_the_database_are_those_of_python(world):
    keys = ["id/zoo/d1/k", 'say "yes"', "back\\slash", "tab\there", "é", "line\nend", ""]
    with rows.open_database(world.folder / "spill") as database:
        database.register("given", pa.table({"key": keys}))
        found = draws(database, "SELECT key FROM given", 7)
    assert found.tolist() == [draw(key, 7) for key in keys]


@pytest.mark.parametrize("num_rows", [0, 10, ROW_GROUP_ROWS, ROW_GROUP_ROWS + 3])
def test_batches_are_written_as_a_table_of_them_is(tmp_path, num_rows):
    schema = pa.schema([("id", pa.string()), ("value", pa.int32())])
    table = pa.table({"id": [f"s{i}" for i in range(num_rows)], "value": range(num_rows)}, schema=schema)
    whole = write_parquet(table, tmp_path / "whole").read_bytes()
    reader = pa.RecordBatchReader.from_batches(schema, table.to_batches(max_chunksize=777))
    assert write_batches(reader, schema, tmp_path / "parts") == num_rows
    assert (tmp_path / "parts").read_bytes() == whole
    assert pq.read_metadata(tmp_path / "parts").num_rows == num_rows
