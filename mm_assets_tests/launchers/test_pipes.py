"""Launched stages in a process of their own, from a real Dagster run."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import dagster as dg
import pytest

from mm_assets.launchers import process as pipes
from mm_assets.launchers.environment import stage_environment
from mm_assets.settings import Settings
from mm_assets.store.manifest import Partition, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.refs import read_ref, require_ref
from mm_assets_tests.defs.launched_shard import failure_sentence, materialize_embeddings, prepare_shard

pytestmark = pytest.mark.integration


@pytest.fixture
def shard(store: Store, moto_settings: Settings, push_samples: Callable[[Store, str, str], Path]) -> Partition:
    return prepare_shard(store, moto_settings, push_samples)


def test_worker_commits_the_partition_under_the_run_that_launched_it(
    store: Store, moto_settings: Settings, instance: dg.DagsterInstance, shard: Partition
) -> None:
    result = materialize_embeddings(instance, moto_settings)
    assert result.success
    ref = require_ref(store, "embeddings", shard)
    assert ref.run_id == result.run_id
    assert read_manifest(store, ref.manifest).environment == stage_environment()
    messages = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert any(f"embeddings r1/0000: computed {ref.content}" in message for message in messages)


def test_failure_of_the_worker_is_one_sentence_in_the_run_and_nothing_is_committed(
    store: Store, moto_settings: Settings, instance: dg.DagsterInstance, shard: Partition
) -> None:
    tensors = require_ref(store, "features", shard).output("tensors.arrow")
    key = store.object_uri(tensors.digest).removeprefix(f"s3://{store.bucket}/")
    store.client.put_object(Bucket=store.bucket, Key=key, Body=b"damaged")
    result = materialize_embeddings(instance, moto_settings)
    assert tensors.digest in failure_sentence(result) and "bytes do not match" in failure_sentence(result)
    assert read_ref(store, "embeddings", shard).ref is None


def test_credentials_never_appear_in_what_the_run_recorded(
    store: Store,
    moto_settings: Settings,
    instance: dg.DagsterInstance,
    shard: Partition,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "unmistakable-secret")
    result = materialize_embeddings(instance, moto_settings)
    assert result.success
    assert "unmistakable-secret" not in "".join(repr(entry) for entry in instance.all_logs(result.run_id))


def test_a_worker_that_dies_silently_is_named_with_its_signal(
    store: Store,
    moto_settings: Settings,
    instance: dg.DagsterInstance,
    shard: Partition,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    killer = tmp_path / "python"
    killer.write_text("#!/bin/sh\nkill -9 $$\n")
    killer.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killer))
    result = materialize_embeddings(instance, moto_settings)
    assert (
        failure_sentence(result)
        == "embeddings r1/0000: its worker process was killed by SIGKILL. Read the run's stderr."
    )
    assert read_ref(store, "embeddings", shard).ref is None


class _Interrupted(BaseException):
    """Stands for the interruption Dagster raises in a run that is terminated."""


SLEEPER = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(300)
"""


def test_terminated_run_takes_the_worker_and_its_children_with_it(tmp_path: Path) -> None:
    note = tmp_path / "child"

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 3)
        with pytest.raises(_Interrupted):
            pipes._run_group([sys.executable, "-c", SLEEPER, str(note)], dict(os.environ))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    deadline = time.monotonic() + 10
    while _is_running(int(note.read_text())) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _is_running(int(note.read_text()))


def _is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.is_file() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
