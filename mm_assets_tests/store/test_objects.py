import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from mm_assets.errors import ObjectCorruptError, ObjectMissingError
from mm_assets.identity.canonical import digest_bytes
from mm_assets.store.objects import object_key

ABSENT = digest_bytes(b"nobody stored this")


def damage(store, digest, data=b"other bytes"):
    """Overwrites an object as a broken disk would."""
    store.client.put_object(Bucket=store.bucket, Key=f"{store.prefix}/{object_key(digest)}", Body=data)


def test_object_is_stored_once_under_its_digest(any_store, tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"some bytes")
    assert any_store.put_bytes(b"some bytes") == any_store.put_file(path) == digest_bytes(b"some bytes")
    assert [info.key for info in any_store.list_keys("objects/")] == [object_key(digest_bytes(b"some bytes"))]
    assert any_store.get_bytes(digest_bytes(b"some bytes")) == b"some bytes"


def test_empty_object_is_an_object(any_store):
    assert any_store.get_bytes(any_store.put_bytes(b"")) == b""


def test_large_file_goes_in_parts_and_comes_back_whole(any_store, tmp_path):
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1 << 20) * 20)
    digest = any_store.put_file(path)
    assert any_store.fetch(digest, tmp_path / "cache").read_bytes() == path.read_bytes()


def test_damaged_object_is_noticed_on_every_way_of_reading(any_store, tmp_path):
    digest = any_store.put_bytes(b"precious data")
    damage(any_store, digest)
    for read in (any_store.get_bytes, any_store.check_object, lambda d: any_store.fetch(d, tmp_path / "c")):
        with pytest.raises(ObjectCorruptError, match=object_key(digest)):
            read(digest)
    assert list((tmp_path / "c").iterdir()) == []


def test_missing_object_is_named(any_store, tmp_path):
    for read in (any_store.get_bytes, any_store.check_object, lambda d: any_store.fetch(d, tmp_path / "c")):
        with pytest.raises(ObjectMissingError, match=object_key(ABSENT)):
            read(ABSENT)
    assert not any_store.has_object(ABSENT)


def test_fetched_file_that_was_damaged_locally_is_fetched_again(any_store, tmp_path):
    digest = any_store.put_bytes(b"data")
    path = any_store.fetch(digest, tmp_path)
    path.write_bytes(b"bad")
    assert any_store.fetch(digest, tmp_path).read_bytes() == b"data"


def test_exactly_one_of_many_creators_wins(any_store):
    for round_number in range(5):
        with ThreadPoolExecutor(12) as pool:
            values = [f"writer {number}".encode() for number in range(12)]
            won = list(pool.map(lambda value, n=round_number: any_store.create_key(f"refs/k{n}", value), values))
        assert won.count(True) == 1
        assert any_store.read_key(f"refs/k{round_number}").data == values[won.index(True)]


def test_exactly_one_of_many_replacers_wins(any_store):
    any_store.create_key("refs/k", b"start")
    for _ in range(5):
        etag = any_store.read_key("refs/k").etag
        values = [os.urandom(8) for _ in range(12)]
        with ThreadPoolExecutor(12) as pool:
            won = list(pool.map(lambda value, e=etag: any_store.replace_key("refs/k", value, e), values))
        assert won.count(True) == 1
        assert any_store.read_key("refs/k").data == values[won.index(True)]


def test_replacing_a_key_that_does_not_exist_fails(any_store):
    assert any_store.replace_key("refs/none", b"x", '"0123456789abcdef0123456789abcdef"') is False
    assert any_store.read_key("refs/none") is None


def test_creating_a_key_again_with_the_same_bytes_is_no_conflict(any_store):
    assert any_store.create_key("releases/r/spec.json", b"same")
    assert any_store.create_key("releases/r/spec.json", b"same")
    assert not any_store.create_key("releases/r/spec.json", b"other")


def test_folders_are_listed_without_their_contents(any_store):
    for key in ("releases/a/spec.json", "releases/a/x/y", "releases/b/spec.json"):
        any_store.create_key(key, b"x")
    assert sorted(any_store.list_folders("releases/")) == ["a", "b"]
    assert sorted(info.key for info in any_store.list_keys("releases/a/")) == ["releases/a/spec.json", "releases/a/x/y"]
