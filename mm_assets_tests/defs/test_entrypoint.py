"""The worker's program, started by hand: no Dagster around it."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mm_assets.launchers.environment import Placement, known_environment, stage_environment
from mm_assets.settings import Settings
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import Store
from mm_assets.store.refs import read_ref, require_ref
from mm_assets_tests.defs.launched_shard import prepare_shard

COMMAND = [sys.executable, "-m", "mm_assets.entrypoint", "--asset", "embeddings", "--release", "r1", "--shard", "0000"]
pytestmark = pytest.mark.integration


@pytest.fixture
def shard(store: Store, moto_settings: Settings, push_samples: Callable[[Store, str, str], Path]) -> Partition:
    return prepare_shard(store, moto_settings, push_samples)


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_commits_and_records_its_environment_under_its_placement(store: Store, shard: Partition) -> None:
    placement = Placement(image="r@sha256:" + "0" * 64)
    command = [*COMMAND, "--run-id", "by-hand", "--placement", placement.encode()]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert require_ref(store, "embeddings", shard).run_id == "by-hand"
    assert known_environment(store, placement) == stage_environment()
    assert ended.stdout == ""


def test_missing_input_is_one_sentence_and_exit_status_1(store: Store, moto_settings: Settings) -> None:
    ended = subprocess.run(COMMAND, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert _last_line(ended.stderr) == "error: release r1: is not open. List the open ones with `mm release list`."
    assert "Traceback" not in ended.stderr


def test_unreachable_store_is_one_sentence_and_exit_status_1(
    moto_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MM_S3_ENDPOINT", "http://127.0.0.1:9")
    ended = subprocess.run(COMMAND, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert _last_line(ended.stderr).startswith("error: s3://")
    assert "does not answer" in _last_line(ended.stderr)


def test_unknown_asset_is_exit_status_2() -> None:
    command = [sys.executable, "-m", "mm_assets.entrypoint", "--asset", "models", "--release", "r1"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "invalid choice: 'models'" in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_its_number_and_nothing_is_committed(
    store: Store, shard: Partition, number: signal.Signals
) -> None:
    process = subprocess.Popen(COMMAND, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "started" in line:
            process.send_signal(number)
            break
    process.stderr.read()
    assert process.wait(timeout=30) == 128 + number
    assert read_ref(store, "embeddings", shard).ref is None
