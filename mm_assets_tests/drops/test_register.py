"""Data that are in S3 already: registered where they lie, read in place, by version; URIs in an index."""

import gzip
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from mm_assets.drops.check import check_drop
from mm_assets.drops.create import create_drop, find_complete_drops, push_drop
from mm_assets.drops.raw import describe_uris
from mm_assets.drops.record import Drop, drop_key, parse_drop
from mm_assets.drops.register import register_drop
from mm_assets.errors import DropError, ObjectCorruptError, ObjectMissingError, StoreDeniedError, UsageError
from mm_assets.identity.canonical import digest_bytes
from mm_assets.lineage.verify import verify_store
from mm_assets.settings import Settings
from mm_assets.store.objects import Store
from mm_assets.store.tables import read_parquet
from mm_assets_tests.drops.raw_data import freeze, jsonl, make_folder, open_test_release, png, sound, tar_bytes


@pytest.fixture
def bucket(store: Store) -> str:
    """Another bucket than the store's."""
    name = f"elsewhere-{uuid4().hex}"
    store.client.create_bucket(Bucket=name)
    return name


def put(store: Store, bucket: str, **files: bytes) -> None:
    for name, data in files.items():
        store.client.put_object(Bucket=bucket, Key=name, Body=data)


def is_sound(store: Store) -> bool:
    """Whether `mm verify` finds nothing; the encoder that a test's release pins is put in its place."""
    store.put_bytes(b"none")
    return verify_store(store).is_sound


def recorded(store: Store, drop: str = "d1") -> Drop:
    found = store.read_key(drop_key("src", drop))
    assert found is not None
    return parse_drop(found.data, drop)


def test_tars_are_registered_where_they_lie(store: Store, settings: Settings, tmp_path: Path, bucket: str) -> None:
    put(
        store,
        bucket,
        **{"in/a.tar": tar_bytes([("x.txt", b"x")]), "in/b.tgz.txt": b"", "in/c/": b"", "other/z.tar": b"z"},
    )
    report = register_drop(store, f"s3://{bucket}/in", "src", "d1")
    assert (report.problems, report.num_samples) == ((), 1)
    (entry,) = recorded(store).objects
    assert (entry.uri, entry.key, entry.version_id) == (f"s3://{bucket}/in/a.tar", None, None)
    raw = json.loads(recorded(store).encode())["objects"]
    assert [set(item) for item in raw] == [{"uri", "size_bytes", "sha256"}]
    assert {info.key for info in store.list_keys("raw/")} == {"raw/src/source.yaml", "raw/src/d1/drop.json"}
    assert find_complete_drops(store) == [("src", "d1")]
    manifest = freeze(store, open_test_release(store, ("src", "d1")), "0000", settings).manifest
    (row,) = read_parquet(store.fetch(manifest.output("samples.parquet").digest, tmp_path)).to_pylist()
    assert (row["id"], row["object"]) == ("src/d1/x", f"s3://{bucket}/in/a.tar")
    again = register_drop(store, f"s3://{bucket}/in/", "src", "d1")
    assert again.num_samples == 1


def test_an_index_and_its_files_are_registered(store: Store, settings: Settings, tmp_path: Path, bucket: str) -> None:
    rows = [
        {"file_name": "im/1.png", "caption": "one"},
        {"file_name": f"s3://{bucket}/far/2.png"},
        {"file_name": "no.png"},
    ]
    put(
        store,
        bucket,
        **{"in/metadata.jsonl": jsonl(*rows), "in/im/1.png": png(), "far/2.png": png(9, 9), "in/x.png": b"x"},
    )
    report = register_drop(store, f"s3://{bucket}/in", "src", "d1")
    assert report.num_samples == 2
    assert [problem.message for problem in report.problems] == ["image 'no.png' is not in the drop (missing_file)"]
    assert {entry.uri for entry in recorded(store).objects} == {
        f"s3://{bucket}/{name}" for name in ("in/metadata.jsonl", "in/im/1.png", "far/2.png")
    }
    spec = open_test_release(store, ("src", "d1"), num_shards=2)
    stats = [freeze(store, spec, shard, settings).manifest.stats for shard in ("0000", "0001")]
    assert sum(int(str(found["rows_out"])) for found in stats) == 2
    assert is_sound(store)
    put(store, bucket, **{"far/2.png": png(9, 10)})
    verified = verify_store(store)
    assert verified.corrupt == (f"s3://{bucket}/far/2.png",)
    assert verified.reasons[f"s3://{bucket}/far/2.png"].startswith(f"s3://{bucket}/far/2.png: bytes do not match")


def test_an_object_that_changed_since_is_named(store: Store, settings: Settings, bucket: str) -> None:
    put(store, bucket, **{"a.tar": tar_bytes([("x.txt", b"x")])})
    register_drop(store, f"s3://{bucket}/a.tar", "src", "d1")
    put(store, bucket, **{"a.tar": tar_bytes([("x.txt", b"y")])})
    spec = open_test_release(store, ("src", "d1"))
    with pytest.raises(ObjectCorruptError, match=rf"^s3://{bucket}/a\.tar: is not .* register the data again"):
        freeze(store, spec, "0000", settings)
    store.client.delete_object(Bucket=bucket, Key="a.tar")
    with pytest.raises(
        ObjectMissingError, match=rf"^s3://{bucket}/a\.tar: is missing from the store: expected sha256:"
    ):
        freeze(store, spec, "0000", settings)


def test_what_lies_in_the_store_is_no_part_of_another_drop(store: Store) -> None:
    store.create_key("raw/private/d1/a.txt", b"secret")
    with pytest.raises(DropError, match=r"raw/private/d1/a\.txt: lies in the store itself: expected an object outside"):
        describe_uris(store, [store.uri("raw/private/d1/a.txt")])


def test_a_version_is_read_whatever_was_written_since(store: Store, settings: Settings, bucket: str) -> None:
    store.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    put(store, bucket, **{"in/index.csv": b"id,image\n1,a.png\n", "in/a.png": png()})
    register_drop(store, f"s3://{bucket}/in", "src", "d1")
    assert all(entry.version_id for entry in recorded(store).objects)
    put(store, bucket, **{"in/index.csv": b"id,text\n1,other\n", "in/a.png": b"other"})
    manifest = freeze(store, open_test_release(store, ("src", "d1")), "0000", settings).manifest
    assert manifest.stats["modalities"] == {"text": 0, "image": 1, "audio": 0, "video": 0}
    assert is_sound(store)


def test_what_cannot_be_registered_is_one_sentence(store: Store, bucket: str) -> None:
    put(store, bucket, **{"empty/notes.md": b"hello", "none/index.csv": b"id,image\n1,gone.png\n"})
    for uri, message in (
        (f"s3://{bucket}/nothing", "holds no objects. Check the bucket and the prefix"),
        (f"s3://{bucket}/empty", r"holds no data: expected tars, or an index .* got 1 other objects"),
        ("s3://elsewhere-none/x", "its bucket does not exist"),
    ):
        with pytest.raises((DropError, ObjectMissingError), match=message):
            register_drop(store, uri, "src", "d1")
    with pytest.raises(UsageError, match="/data: is not an S3 URI: expected s3://BUCKET/PREFIX"):
        register_drop(store, "/data", "src", "d1")
    report = register_drop(store, f"s3://{bucket}/none", "src", "d1")
    assert report.problems[-1].is_fatal
    assert "0 samples are left" in report.problems[-1].message
    assert list(store.list_keys("raw/")) == []


def test_uris_in_a_local_index_are_hashed_checked_and_read_in_place(
    store: Store, settings: Settings, tmp_path: Path, bucket: str
) -> None:
    put(store, bucket, **{"b.wav": sound()})
    rows = [
        {"id": "1", "audio": f"s3://{bucket}/b.wav", "image": "a.png"},
        {"id": "2", "audio": f"s3://{bucket}/gone.wav"},
    ]
    folder = make_folder(tmp_path / "d", {"index.jsonl": jsonl(*rows), "a.png": png()})
    create_drop(folder, "src", "d1", open_remote=lambda: store)
    report = check_drop(folder, open_remote=lambda: store)
    assert report.num_samples == 1
    assert [problem.line for problem in report.problems] == [2]
    assert push_drop(store, folder).num_uploaded == 2
    manifest = freeze(store, open_test_release(store, ("src", "d1")), "0000", settings).manifest
    assert manifest.stats["modalities"] == {"text": 0, "image": 1, "audio": 1, "video": 0}


def test_the_same_bytes_registered_under_one_name_again_are_no_error_and_others_are(store: Store, bucket: str) -> None:
    put(store, bucket, **{"a.tar": tar_bytes([("x.txt", b"x")])})
    register_drop(store, f"s3://{bucket}/a.tar", "src", "d1")
    put(store, bucket, **{"a.tar": tar_bytes([("x.txt", b"y")])})
    with pytest.raises(DropError, match=r"raw/src/d1/drop\.json: another drop of that name is in the store"):
        register_drop(store, f"s3://{bucket}/a.tar", "src", "d1")


def test_a_bucket_that_nobody_named_is_not_read(store: Store, settings: Settings, tmp_path: Path, bucket: str) -> None:
    put(store, bucket, **{"in/a.tar": tar_bytes([("x.txt", b"x")]), "b.png": png()})
    register_drop(store, f"s3://{bucket}/in", "src", "d1")
    narrow = replace(store, raw_buckets=("lake", "other-*"))
    refused = (
        rf"^s3://{bucket}/.*: raw data are not read from its bucket: expected one of {store.bucket}, lake, other-\*,"
    )
    with pytest.raises(StoreDeniedError, match=refused):
        register_drop(narrow, f"s3://{bucket}/in", "src", "d2")
    with pytest.raises(StoreDeniedError, match=refused):
        freeze(narrow, open_test_release(store, ("src", "d1")), "0000", settings)
    folder = make_folder(tmp_path / "d", {"index.jsonl": jsonl({"id": "1", "image": f"s3://{bucket}/b.png"})})
    with pytest.raises(StoreDeniedError, match=refused):
        create_drop(folder, "src", "d3", open_remote=lambda: narrow)


@contextmanager
def reads_of(store: Store, before: Callable[[str, int], None] = lambda key, times: None) -> Iterator[Counter[str]]:
    """How often each object is read; ``before`` is called ahead of each read."""
    found = Counter[str]()

    def note(params: dict[str, str], **_: object) -> None:
        key = params["url_path"].partition("/in/")[2]
        if key:
            found[key] += 1
            before(key, found[key])

    store.client.meta.events.register("before-call.s3.GetObject", note)
    try:
        yield found
    finally:
        store.client.meta.events.unregister("before-call.s3.GetObject", note)


def test_every_object_is_read_once(store: Store, bucket: str) -> None:
    rows = [{"id": "1", "image": "a.png"}, {"id": "1", "audio": "b.wav"}, {"id": "2", "audio": "c.wav"}]
    files = {"in/index.jsonl": jsonl(*rows), "in/a.png": png(), "in/b.wav": sound(), "in/c.wav": b"not a sound"}
    put(store, bucket, **files)
    with reads_of(store) as read:
        assert register_drop(store, f"s3://{bucket}/in", "src", "d1").num_samples == 1
    assert read == dict.fromkeys(["index.jsonl", "a.png", "b.wav", "c.wav"], 1)
    for entry in recorded(store).objects:
        data = files[entry.name.partition(f"{bucket}/")[2]]
        assert (entry.digest, entry.size_bytes) == (digest_bytes(data), len(data))
    put(store, bucket, **{"tars/in/a.tar": tar_bytes([("x.txt", b"x")]), "tars/in/b.tgz": gzip.compress(tar_bytes([]))})
    with reads_of(store) as read:
        register_drop(store, f"s3://{bucket}/tars", "src", "d2")
    assert read == {"a.tar": 1, "b.tgz": 1}


def test_an_object_that_changes_while_it_is_registered_is_named(store: Store, bucket: str) -> None:
    # One of several pictures is another part than a picture alone, and is read for itself.
    rows = [{"id": str(number), "image": name} for number, name in enumerate(("a.png", "b.png", ["a.png", "b.png"]))]

    def change(key: str, times: int) -> None:
        if key == "a.png" and times == 2:
            put(store, bucket, **{"in/a.png": png(shade=9)})

    put(store, bucket, **{"in/index.jsonl": jsonl(*rows), "in/a.png": png(), "in/b.png": png(9, 9)})
    with reads_of(store, change):
        report = register_drop(store, f"s3://{bucket}/in", "src", "d1")
    assert [problem.is_fatal for problem in report.problems] == [True]
    assert "in/a.png: changed while it was read: expected " in report.problems[0].message
    assert list(store.list_keys("raw/")) == []


@pytest.mark.integration
def test_a_key_that_no_record_can_hold_is_one_sentence(seaweed_store: Store) -> None:
    bucket = f"elsewhere-{uuid4().hex}"
    seaweed_store.client.create_bucket(Bucket=bucket)
    put(seaweed_store, bucket, **{"in/a\nb.tar": tar_bytes([("x.txt", b"x")])})
    with pytest.raises(DropError, match=r"^'s3://.*a\\nb\.tar': uri: String should match pattern"):
        register_drop(seaweed_store, f"s3://{bucket}/in", "src", "d1")


@pytest.mark.integration
def test_a_real_server_keeps_the_version_that_was_registered(
    seaweed_store: Store, settings: Settings, tmp_path: Path
) -> None:
    bucket = f"elsewhere-{uuid4().hex}"
    seaweed_store.client.create_bucket(Bucket=bucket)
    seaweed_store.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    body = io.BytesIO(tar_bytes([("x.txt", b"x")]))
    seaweed_store.client.put_object(Bucket=bucket, Key="in/a.tar", Body=body)
    assert register_drop(seaweed_store, f"s3://{bucket}/in", "src", "d1").num_samples == 1
    put(seaweed_store, bucket, **{"in/a.tar": b"other"})
    manifest = freeze(seaweed_store, open_test_release(seaweed_store, ("src", "d1")), "0000", settings).manifest
    assert manifest.stats["rows_out"] == 1
