"""Shards of an index: each reads its own part, media arrive in any order, large cells stay on disk."""

import io
import json
import random
import threading
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mm_assets.drops.collection import Collection
from mm_assets.drops.create import create_drop
from mm_assets.drops.index import read_index
from mm_assets.drops.layout import lay_out, parse_layout
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.record import DropObject
from mm_assets.drops.rows import FETCH_THREADS, read_rows
from mm_assets.drops.samples import Sample, VerifiedReader
from mm_assets.errors import DropError, ObjectCorruptError
from mm_assets.identity.canonical import digest_bytes
from mm_assets.modalities.reasons import Refusal
from mm_assets.settings import Settings
from mm_assets.store.objects import Store
from mm_assets_tests.drops.raw_data import deliver, drop_of, freeze, jsonl, make_folder, open_test_release, png
from mm_assets_tests.store.committing import damage
from mm_assets_tests.videos import video

ROWS = [{"id": f"r{number:05d}", "text": f"text of row {number} " * 5} for number in range(4000)]


def index_bytes(kind: str) -> bytes:
    if kind == "index.jsonl":
        return jsonl(*ROWS)
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), file, row_group_size=250, compression=None, use_dictionary=False)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["index.jsonl", "index.parquet"])
def test_every_shard_reads_its_own_part_of_the_index(
    store: Store, settings: Settings, tmp_path: Path, kind: str
) -> None:
    data = index_bytes(kind)
    deliver(store, make_folder(tmp_path / "d", {kind: data}))
    read: Counter[str] = Counter()

    def count(parsed: dict[str, Any], model: Any, **_: Any) -> None:
        read[model.name] += parsed.get("ContentLength", 0)

    spec = open_test_release(store, ("src", "d1"), num_shards=4)
    for shard in spec.shards():
        read.clear()
        store.client.meta.events.register("after-call.s3", count, unique_id="count")
        manifest = freeze(store, spec, shard, settings).manifest
        store.client.meta.events.unregister("after-call.s3", unique_id="count")
        assert manifest.stats["rows_out"] == 1000
        # The first shard reads all of it once, to say where the rows are.
        assert read["GetObject"] < len(data) * (1.5 if shard == "0000" else 0.4), shard


@pytest.mark.parametrize("num_shards", [1, 3, 64, 5000])
@pytest.mark.parametrize("kind", ["index.jsonl", "index.parquet"])
def test_every_row_is_in_a_part_of_exactly_one_shard(tmp_path: Path, kind: str, num_shards: int) -> None:
    path = make_folder(tmp_path, {kind: index_bytes(kind)}) / kind
    layout = lay_out(path, kind, num_shards, tmp_path)
    assert parse_layout(layout.encode()) == layout
    counts = Counter(layout.run_of(row) % num_shards for row in range(len(ROWS)))
    assert max(counts.values()) - min(counts.get(shard, 0) for shard in range(num_shards)) <= 8
    assert [row.number for row in read_index(path, kind)] == list(range(len(ROWS)))


def test_rows_and_lines_are_counted_over_the_whole_index(store: Store, settings: Settings, tmp_path: Path) -> None:
    rows = [json.dumps(row).encode() for row in ROWS[:100]]
    rows[40] = b"{broken"
    rows[77] = rows[3]
    deliver(store, make_folder(tmp_path / "d", {"index.jsonl": b"\n\n" + b"\n\n".join(rows)}))
    spec = open_test_release(store, ("src", "d1"), num_shards=3)
    letters: set[tuple[str, str]] = set()
    for shard in spec.shards():
        output = freeze(store, spec, shard, settings).manifest.output("dead_letters.parquet")
        table = pq.read_table(store.fetch(output.digest, tmp_path / "o"))
        letters |= {(row["member"], row["reason"]) for row in table.to_pylist()}
    assert letters == {("index.jsonl:83", "bad_row"), ("index.jsonl:157", "duplicate_id")}


def test_a_part_that_changed_after_the_layout_is_named(store: Store, settings: Settings, tmp_path: Path) -> None:
    deliver(store, make_folder(tmp_path / "d", {"index.jsonl": jsonl(*ROWS[:100])}))
    spec = open_test_release(store, ("src", "d1"), num_shards=2)
    freeze(store, spec, "0000", settings)
    key = "raw/src/d1/index.jsonl"
    current = store.read_key(key)
    assert current is not None
    damage(store, key, b" " + current.data[1:])
    other = open_test_release(store, ("src", "d1"), num_shards=2, release="r2", config=SnapshotConfig(max_key_bytes=99))
    with pytest.raises(ObjectCorruptError, match=r"^raw/src/d1/index\.jsonl: bytes 0 to \d+ are not those that"):
        freeze(store, other, "0000", settings)
    assert freeze(store, other, "0001", settings).manifest.stats["rows_out"] > 0


class SlowReader(VerifiedReader):
    """A file that takes its time, another one each time."""

    running = most = 0
    lock = threading.Lock()

    def read(self, size: int = 1 << 20) -> bytes:
        with self.lock:
            SlowReader.running += 1
            SlowReader.most = max(SlowReader.most, SlowReader.running)
        time.sleep(random.uniform(0.001, 0.01))
        with self.lock:
            SlowReader.running -= 1
        return super().read(size)


def test_several_files_are_on_their_way_and_samples_keep_their_order(tmp_path: Path) -> None:
    files = {f"{number}.png": png(shade=number) for number in range(60)}
    objects = [DropObject(key=key, size_bytes=len(data), sha256=digest_bytes(data)[7:]) for key, data in files.items()]
    rows = jsonl(*({"id": f"r{number}", "image": f"{number}.png"} for number in range(60)))
    index = make_folder(tmp_path / "d", {"index.jsonl": rows}) / "index.jsonl"
    entry = DropObject(key="index.jsonl", size_bytes=len(rows), sha256=digest_bytes(rows)[7:])
    found_in: list[list[tuple[str, int]]] = []
    for attempt in range(2):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with Collection(folder, SnapshotConfig()) as found:
            read_rows(
                read_index(index, "index.jsonl"),
                drop_of("index", [entry, *objects]),
                lambda entry: SlowReader(io.BytesIO(files[entry.key]), entry, entry.key),
                found,
                repeated=frozenset(),
            )
            samples = [made for _, made in found.read_back()]
            found_in.append([(made.key, made.parts[0].offset) for made in samples if isinstance(made, Sample)])
    assert found_in[0] == found_in[1]
    assert len(found_in[0]) == 60
    assert 1 < SlowReader.most <= FETCH_THREADS


def test_a_video_that_many_rows_are_ranges_of_is_read_once(tmp_path: Path) -> None:
    files = {f"{number}.mp4": video(seconds=0.2, hue=number) for number in range(2)}
    objects = [DropObject(key=key, size_bytes=len(data), sha256=digest_bytes(data)[7:]) for key, data in files.items()]
    rows = jsonl(*({"id": f"r{n}", "video": f"{n % 2}.mp4", "start_s": 0, "end_s": 0.1} for n in range(100)))
    index = make_folder(tmp_path / "d", {"index.jsonl": rows}) / "index.jsonl"
    entry = DropObject(key="index.jsonl", size_bytes=len(rows), sha256=digest_bytes(rows)[7:])
    opened: list[str] = []

    def opening(entry: DropObject) -> VerifiedReader:
        opened.append(entry.name)
        return VerifiedReader(io.BytesIO(files[entry.name]), entry, entry.name)

    with Collection(tmp_path, SnapshotConfig()) as found:
        drop = drop_of("index", [entry, *objects])
        read_rows(read_index(index, "index.jsonl"), drop, opening, found, repeated=frozenset())
        made = [made for _, made in found.read_back() if isinstance(made, Sample)]
    assert len(made) == 100
    assert sorted(opened) == ["0.mp4", "1.mp4"]


def write_large_cells(folder: Path, *names: str, use_dictionary: bool, num_rows: int) -> Path:
    """An index of some kilobytes that decodes into a megabyte a row for each of the columns ``names``."""
    folder.mkdir()
    cells = ["x" * 1_000_000] * num_rows
    ids = [f"r{number}" for number in range(num_rows)]
    table = pa.table({"id": ids, "text": ["a"] * num_rows, **dict.fromkeys(names, cells)})
    pq.write_table(table, folder / "index.parquet", compression="zstd", use_dictionary=use_dictionary)
    return folder / "index.parquet"


def test_a_small_parquet_index_with_large_cells_takes_little_memory(tmp_path: Path) -> None:
    path = write_large_cells(tmp_path / "d", "note", use_dictionary=True, num_rows=150)
    assert path.stat().st_size < 20_000
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    num_rows = most = 0
    for row in read_index(path, "index.parquet"):
        num_rows += not isinstance(row.columns, Refusal)
        most = max(most, pa.total_allocated_bytes() - before)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert num_rows == 150
    assert most + peak_bytes < 80_000_000


def test_large_cells_that_can_only_be_read_together_are_refused(tmp_path: Path) -> None:
    write_large_cells(tmp_path / "d", "more", "note", use_dictionary=False, num_rows=140)
    with pytest.raises(
        DropError, match=r"column note: has large cells, in a row group with 280\d+ bytes of them; 268435456"
    ):
        create_drop(tmp_path / "d", "src", "d1")


def test_a_row_of_a_parquet_index_above_the_ceiling_is_its_own_problem(tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b", "c"], "text": ["x", "y" * 5_000_000, "z"]})
    (tmp_path / "d").mkdir()
    pq.write_table(table, tmp_path / "d" / "index.parquet")
    create_drop(tmp_path / "d", "src", "d1")
    rows = [row.columns for row in read_index(tmp_path / "d" / "index.parquet", "index.parquet")]
    assert [isinstance(row, Refusal) for row in rows] == [False, True, False]
    assert rows[1] == Refusal("bad_row", "row has 5000001 bytes; 4194304 are allowed")
