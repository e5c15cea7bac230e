"""A store that does not answer, or not to us: one sentence, and soon."""

import json
import socket
import time
from dataclasses import replace

import boto3
import pytest

from mm_assets.errors import ObjectMissingError, SettingsError, StoreDeniedError, StoreUnreachableError
from mm_assets.settings import read_settings
from mm_assets.store import embedded
from mm_assets.store.client import make_client
from mm_assets.store.objects import Store, open_store

READER = {"access_key": "reader", "secret_key": "readersecret"}


@pytest.fixture(scope="module")
def guarded_server(tmp_path_factory):
    """A SeaweedFS of our own with a second identity that may only read."""
    home = tmp_path_factory.mktemp("guarded")
    folder = home / "store"
    folder.mkdir()
    owner = {"accessKey": "owner", "secretKey": "ownersecret"}
    reader = {"accessKey": READER["access_key"], "secretKey": READER["secret_key"]}
    identities = [
        {"name": "mm", "credentials": [owner], "actions": ["Admin", "Read", "Write", "List", "Tagging"]},
        {"name": "reader", "credentials": [reader], "actions": ["Read", "List"]},
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}), encoding="utf-8")
    yield embedded.ensure_running(home)
    embedded.stop(home)


def store_as(server, credentials):
    return Store(client=make_client(server.endpoint, credentials), bucket=server.bucket, prefix="p")


def is_one_sentence(error):
    text = str(error)
    return "\n" not in text and "Traceback" not in text and text.startswith("s3://")


@pytest.mark.integration
@pytest.mark.parametrize(
    "credentials",
    [{"access_key": "nobody", "secret_key": "x"}, {"access_key": "owner", "secret_key": "wrong"}],
    ids=["unknown key", "wrong secret"],
)
def test_wrong_credentials_are_denied_in_one_sentence(guarded_server, credentials):
    store = store_as(guarded_server, credentials)
    for act in (lambda: store.read_key("k"), lambda: store.put_bytes(b"x"), lambda: list(store.list_keys("refs/"))):
        with pytest.raises(StoreDeniedError, match="Check AWS_ACCESS_KEY_ID") as caught:
            act()
        assert is_one_sentence(caught.value)


@pytest.mark.integration
def test_read_only_identity_reads_and_is_told_which_write_it_may_not_do(guarded_server, tmp_path):
    owner = store_as(guarded_server, {"access_key": "owner", "secret_key": "ownersecret"})
    digest = owner.put_bytes(b"shared")
    owner.create_key("refs/k", b"1")
    reader = store_as(guarded_server, READER)
    assert reader.get_bytes(digest) == b"shared"
    etag = reader.read_key("refs/k").etag
    path = tmp_path / "f"
    path.write_bytes(b"new")
    writes = (
        lambda: reader.put_bytes(b"new"),
        lambda: reader.put_file(path),
        lambda: reader.create_key("refs/other", b"2"),
        lambda: reader.replace_key("refs/k", b"2", etag),
    )
    for write in writes:
        with pytest.raises(StoreDeniedError, match="the store refused PutObject") as caught:
            write()
        assert is_one_sentence(caught.value)
    assert owner.read_key("refs/k").data == b"1"


def test_endpoint_where_nobody_listens_is_unreachable_within_seconds(tmp_path, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    settings = read_settings(
        {"MM_HOME": str(tmp_path), "MM_STORE_URI": "s3://bucket/p", "MM_S3_ENDPOINT": f"http://127.0.0.1:{port}"}
    )
    started = time.monotonic()
    with pytest.raises(StoreUnreachableError, match=r"^s3://bucket: the store does not answer\. Check MM_S3_ENDPOINT"):
        open_store(settings)
    assert time.monotonic() - started < 15


def test_missing_credentials_are_named(tmp_path, monkeypatch, moto_endpoint):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    boto3.setup_default_session()  # forgets the credentials that another test's client was given
    settings = read_settings(
        {"MM_HOME": str(tmp_path), "MM_STORE_URI": "s3://bucket/p", "MM_S3_ENDPOINT": moto_endpoint}
    )
    with pytest.raises(StoreDeniedError, match="no credentials. Set AWS_ACCESS_KEY_ID"):
        open_store(settings)


def test_missing_bucket_is_named(store, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    settings = read_settings({"MM_STORE_URI": "s3://no-such/p", "MM_S3_ENDPOINT": store.client.meta.endpoint_url})
    with pytest.raises(ObjectMissingError, match="s3://no-such: its bucket does not exist"):
        open_store(settings)


def test_configured_store_is_opened_with_its_prefix(store, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    endpoint = store.client.meta.endpoint_url
    settings = read_settings({"MM_STORE_URI": f"s3://{store.bucket}/deep/er/", "MM_S3_ENDPOINT": endpoint})
    opened = open_store(settings)
    opened.create_key("k", b"1")
    assert [info.key for info in replace(opened, prefix="").list_keys("")] == ["deep/er/k"]


def test_store_uri_of_another_kind_is_a_settings_error():
    settings = read_settings({"MM_STORE_URI": "file:///tmp/x"})
    with pytest.raises(SettingsError, match="expected s3://bucket/prefix, got 'file:///tmp/x'"):
        open_store(settings)
