"""A deployment as it runs: webserver, daemon and code server, a drop that arrives damaged, and its repair."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

from mm_assets.operations.instance import prepare_home
from mm_assets.promotion.chain import read_registry
from mm_assets.settings import Settings, read_settings
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import Store
from mm_assets.store.refs import read_ref
from mm_assets_tests.lenient_rules import write_lenient_rules

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
RELEASE = "shapes-d1"
#: The last row of the drop, and therefore in shard 1 of 2.
DAMAGED_OBJECT = "raw/shapes/d1/s059.png"
DAMAGED_SHARD, OTHER_SHARD = f"{RELEASE}|0001", f"{RELEASE}|0000"
PHASE_TIMEOUT_S = 300
#: Of the deployment's log, shown where something did not come.
LOG_LINES = 200

REEXECUTE = """
mutation Reexecute($run: String!) {
  launchRunReexecution(reexecutionParams: {parentRunId: $run, strategy: FROM_FAILURE}) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""


@pytest.fixture
def deployment_env(seaweed_env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Two shards, small models, and gates that a handful of samples can pass."""
    config = write_lenient_rules(tmp_path / "config", promote_to="candidate")
    (config / "new_drops.yaml").write_text("schema: mm.new_drops/2\nconfiguration: smoke\npolicy: default\n", "utf-8")
    return seaweed_env | {
        "MM_NUM_SHARDS": "2",
        "MM_WORLD_SIZE": "1",
        "MM_CONFIG_DIR": str(config),
        "MM_HOME": str(tmp_path / "home"),
        "DAGSTER_HOME": str(tmp_path / "dagster"),
    }


@pytest.fixture
def deployment(deployment_env: dict[str, str], tmp_path: Path) -> Iterator["Deployment"]:
    """``dagster dev`` in a process group of its own, which is gone afterwards."""
    settings = read_settings(deployment_env)
    prepare_home(settings)
    port = _free_port()
    command = [
        sys.executable,
        "-m",
        "dagster",
        "dev",
        "-m",
        "mm_assets.definitions",
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    # The instance is opened first: processes that create its database at the same moment break one another's schema.
    with (
        dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance,
        (tmp_path / "dagster.log").open("wb") as log,
    ):
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **deployment_env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield Deployment(settings, instance, f"http://127.0.0.1:{port}/graphql", tmp_path / "dagster.log")
        finally:
            _end_group(process)


def test_a_damaged_drop_waits_for_its_repair_and_then_becomes_a_candidate(
    deployment: "Deployment", seaweed_store: Store, push_samples: Callable[..., Path]
) -> None:
    store = seaweed_store
    # 45 MB: enough for two shards.
    push_samples(store, "shapes", "d1", num_samples=60, side=576)
    sound = _overwrite(store, DAMAGED_OBJECT, b"not the picture that was delivered")

    check = deployment.wait_for_check("snapshot", DAMAGED_SHARD)
    assert check.status.value == "FAILED"
    assert DAMAGED_OBJECT in deployment.description(check)
    assert deployment.wait_for_check("embeddings", OTHER_SHARD).status.value == "SUCCEEDED"
    assert read_ref(store, "snapshot", Partition(release=RELEASE, shard="0001")).ref is None
    assert read_ref(store, "dataset_release", Partition(release=RELEASE)).ref is None

    _overwrite(store, DAMAGED_OBJECT, sound)
    answer = deployment.graphql(REEXECUTE, run=check.run_id)["launchRunReexecution"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    assert deployment.wait_for_check("embeddings", DAMAGED_SHARD).status.value == "SUCCEEDED"

    candidate = deployment.wait(lambda: read_registry(store, "candidate"), "a candidate")
    assert candidate.release == RELEASE
    assert deployment.wait_for_check("promotion", RELEASE).status.value == "SUCCEEDED"
    assert deployment.wait_for_check("registration", RELEASE).status.value == "SUCCEEDED"
    assert {run.tags["dagster/partition"] for run in deployment.failed_runs()} == {DAMAGED_SHARD}


class Deployment:
    """The deployment from outside: its API, and what it wrote to its database."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance, url: str, log: Path) -> None:
        self._settings = settings
        self._instance = instance
        self._url = url
        self._log = log

    def graphql(self, query: str, **variables: str) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self._url, data=body, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            document = json.load(answer)
        assert "errors" not in document, document["errors"]
        return document["data"]

    def wait_for_check(self, asset: str, key: str) -> AssetCheckExecutionRecord:
        """The check's latest evaluation, once there is one and its run is over."""
        return self.wait(lambda: self._check(asset, key), f"the check of {asset} {key}")

    def description(self, record: AssetCheckExecutionRecord) -> str:
        assert record.event is not None
        assert record.event.dagster_event is not None
        return record.event.dagster_event.asset_check_evaluation_data.description or ""

    def failed_runs(self) -> list[dg.DagsterRun]:
        return list(self._instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])))

    def wait(self, probe: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + PHASE_TIMEOUT_S
        while time.monotonic() < deadline:
            found = probe()
            if found is not None:
                return found
            time.sleep(1)
        runs = [f"{run.status.value} {run.tags.get('dagster/partition')}" for run in self._instance.get_runs()]
        log = "\n".join(self._log.read_text("utf-8", errors="replace").splitlines()[-LOG_LINES:])
        pytest.fail(f"{what} did not come within {PHASE_TIMEOUT_S} s; runs: {runs}; the log ends with:\n{log}")

    def _check(self, asset: str, key: str) -> AssetCheckExecutionRecord | None:
        check = dg.AssetCheckKey(dg.AssetKey(asset), "check")
        records = self._instance.event_log_storage.get_latest_asset_check_execution_by_key(
            [check], partition_filter=PartitionKeyFilter(key=key)
        )
        record = records.get(check)
        if record is None or record.status.value == "PLANNED":
            return None
        run = self._instance.get_run_by_id(record.run_id)
        return record if run is not None and run.is_finished else None


def _overwrite(store: Store, key: str, data: bytes) -> bytes:
    """Replaces what is under ``key`` and returns what was there."""
    current = store.read_key(key)
    assert current is not None
    assert store.replace_key(key, data, current.etag)
    return current.data


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    for number, patience_s in ((signal.SIGINT, 20), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline and _is_group_alive(process):
            time.sleep(0.2)
    process.wait()


def _is_group_alive(process: "subprocess.Popen[bytes]") -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
