from pathlib import Path

import pytest

from mm_assets.settings import read_settings, worker_environment


def test_worker_reads_the_settings_of_its_launcher_and_inherits_the_rest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MM_S3_ENDPOINT", "http://stale:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "inherited")
    settings = read_settings(
        {"MM_STORE_URI": "s3://b/p", "MM_HOME": str(tmp_path), "MM_WORLD_SIZE": "3", "MM_CONFIG_DIR": str(tmp_path)}
        | {"MM_RAW_BUCKETS": "lake,birds-*"}
    )
    environment = worker_environment(settings)
    assert "MM_S3_ENDPOINT" not in environment
    assert environment["AWS_ACCESS_KEY_ID"] == "inherited"
    again = read_settings(environment)
    for name in ("store_uri", "s3_endpoint", "num_shards", "config_dir", "home", "world_size", "raw_buckets"):
        assert getattr(again, name) == getattr(settings, name), name
