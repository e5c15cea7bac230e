import os
from pathlib import Path

import pytest

from mm_assets.errors import SettingsError
from mm_assets.settings import current_user, read_settings


def test_defaults_are_the_embedded_store_under_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = read_settings({})
    assert settings.is_embedded
    assert settings.home == tmp_path / ".mm"
    assert settings.dagster_home == tmp_path / ".mm" / "dagster"
    assert (settings.num_shards, settings.launcher) == (4, "subprocess")


def test_empty_variable_is_an_unset_one():
    settings = read_settings({"MM_STORE_URI": "", "MM_NUM_SHARDS": "", "MM_LAUNCHER": "", "MM_S3_ENDPOINT": ""})
    assert settings.is_embedded
    assert (settings.num_shards, settings.launcher, settings.s3_endpoint) == (4, "subprocess", None)


@pytest.mark.parametrize("text", ["0", "-1", "4.0", "100001", "four", "٤", " 4"])
def test_unusable_number_is_named_with_its_variable(text):
    with pytest.raises(SettingsError, match="MM_NUM_SHARDS: is unusable: expected a whole number from 1 to 10000") as e:
        read_settings({"MM_NUM_SHARDS": text})
    assert repr(text) in str(e.value)


def test_unknown_launcher_is_named():
    with pytest.raises(
        SettingsError, match="MM_LAUNCHER: is unknown: expected one of subprocess, kubernetes, got 'ssh'"
    ):
        read_settings({"MM_LAUNCHER": "ssh"})


@pytest.mark.parametrize(
    ("uri", "expected"),
    [("s3://b", ("b", "")), ("s3://b/", ("b", "")), ("s3://b/p", ("b", "p")), ("s3://b/p/q/", ("b", "p/q"))],
)
def test_store_uri_is_a_bucket_and_a_prefix(uri, expected):
    assert read_settings({"MM_STORE_URI": uri}).bucket_and_prefix() == expected


@pytest.mark.parametrize("uri", ["b/p", "s3:///p", "https://b/p"])
def test_malformed_store_uri_is_refused(uri):
    with pytest.raises(SettingsError, match="MM_STORE_URI: is malformed"):
        read_settings({"MM_STORE_URI": uri}).bucket_and_prefix()


def test_teams_own_configuration_file_comes_before_the_packaged_one(tmp_path):
    settings = read_settings({"MM_CONFIG_DIR": str(tmp_path)})
    assert settings.config_file("x.yaml").parent.parent.name == "mm_assets"
    (tmp_path / "x.yaml").write_text("a: 1")
    assert settings.config_file("x.yaml") == tmp_path / "x.yaml"


def test_buckets_are_a_list_of_names_and_patterns():
    assert read_settings({"MM_RAW_BUCKETS": " lake, birds-*,,"}).raw_buckets == ("lake", "birds-*")
    assert read_settings({"MM_RAW_BUCKETS": ""}).raw_buckets == ()
    with pytest.raises(SettingsError, match="MM_RAW_BUCKETS: is unusable: .*, got 's3://lake'"):
        read_settings({"MM_RAW_BUCKETS": "lake,s3://lake"})


def test_relative_folders_become_absolute():
    settings = read_settings({"MM_HOME": "here", "DAGSTER_HOME": "there", "MM_CONFIG_DIR": "config"})
    assert settings.home == Path("here").absolute()
    assert settings.dagster_home == Path("there").absolute()
    assert settings.config_dir == Path("config").absolute()


def test_a_user_without_a_name_is_recorded_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert current_user() == "uid 54321"
