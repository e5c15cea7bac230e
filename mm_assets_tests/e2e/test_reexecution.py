"""A run that ``mm run`` made and that failed is executed again from the UI, both ways, once its data are repaired."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from mm_assets.configurations import ReleaseRequest, open_named_release
from mm_assets.demo.data import DROP, SOURCE, USE, build_demo_drop
from mm_assets.drops.create import push_drop
from mm_assets.materialize import Workspace
from mm_assets.settings import read_settings
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import open_store
from mm_assets.store.refs import read_ref

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

RELEASE = "emoji-1"
#: Object 3 of the drop, and therefore in shard 1 of 2.
DAMAGED = f"raw/{SOURCE}/{DROP}/emoji-0003.tar"
DAMAGED_SHARD = Partition(release=RELEASE, shard="0001")
PHASE_TIMEOUT_S = 180
ROOT = Path(__file__).parents[2]

FAILED_RUN = """
query { runsOrError(filter: {statuses: [FAILURE]}) { ... on Runs { results {
  runId jobName hasReExecutePermission repositoryOrigin { repositoryName repositoryLocationName }
  assetSelection { path } tags { key value } runConfigYaml rootRunId } } } }
"""
STATUS = "query Status($run: ID!) { runOrError(runId: $run) { ... on Run { status parentRunId } } }"
FROM_FAILURE = """
mutation Again($run: String!) {
  launchRunReexecution(reexecutionParams: {parentRunId: $run, strategy: FROM_FAILURE}) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}
"""
ALL_STEPS = """
mutation Again($params: ExecutionParams!) {
  launchPipelineReexecution(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}
"""


@pytest.fixture
def place(make_workplace: Callable[[str], Any]) -> Iterator[tuple[Any, Path]]:
    """A workplace with an open release one of whose objects is damaged, and the drop's folder."""
    place = make_workplace(f"again-{uuid4().hex[:6]}")
    settings = read_settings(place.environment | {"MM_NUM_SHARDS": "2"})
    store = open_store(settings)
    folder = build_demo_drop(place.folder / "drop", num_emoji=40)
    push_drop(store, folder)
    request = ReleaseRequest(release=RELEASE, drops=((SOURCE, DROP),), configuration="smoke", num_shards=2, use=USE)
    open_named_release(Workspace(settings, store), request)
    current = store.read_key(DAMAGED)
    assert current is not None
    assert store.replace_key(DAMAGED, current.data[:-512] + b"\1" * 512, current.etag)
    yield place, folder


def test_a_failed_run_of_the_command_is_executed_again_from_the_ui(place: tuple[Any, Path]) -> None:
    work, folder = place
    environment = work.environment | {
        "MM_NUM_SHARDS": "2",
        "MM_WORLD_SIZE": "1",
        "MM_PARALLEL": "2",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "mm_assets.cli"]
    first = subprocess.run(
        [*command, "run", "--release", RELEASE, "--stage", "snapshot", "--json"],
        env=environment, cwd=work.folder, capture_output=True, text=True, check=False, timeout=PHASE_TIMEOUT_S,
    )  # fmt: skip
    assert first.returncode == 1, first.stderr
    report = json.loads(first.stdout.splitlines()[-1])
    assert [failure["partition"] for failure in report["failed"]] == [DAMAGED_SHARD.path]
    assert report["computed"] == 1

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (work.folder / "ui.log").open("wb") as log:
        ui = subprocess.Popen(
            [*command, "ui", "--port", str(port)],
            env=environment, cwd=work.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        api = _Api(f"http://127.0.0.1:{port}/graphql")
        _wait(api.answers, "the UI")
        failed = api.call(FAILED_RUN)["runsOrError"]["results"][0]
        assert failed["repositoryOrigin"] == {"repositoryName": "__repository__", "repositoryLocationName": "mm_assets"}
        push_drop(work.store(), folder)

        answer = api.call(FROM_FAILURE, run=failed["runId"])["launchRunReexecution"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        assert api.ended(answer["run"]["runId"]) == {"status": "SUCCESS", "parentRunId": failed["runId"]}
        assert read_ref(work.store(), "snapshot", DAMAGED_SHARD).ref is not None

        answer = api.call(ALL_STEPS, params=_all_steps(failed))["launchPipelineReexecution"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        assert api.ended(answer["run"]["runId"]) == {"status": "SUCCESS", "parentRunId": failed["runId"]}
    finally:
        ui.send_signal(signal.SIGTERM)
        ui.wait(60)


def _all_steps(run: dict[str, Any]) -> dict[str, Any]:
    """What the UI sends for "re-execute all steps"."""
    origin = run["repositoryOrigin"]
    root = run["rootRunId"] or run["runId"]
    parents = [
        {"key": "dagster/root_run_id", "value": root},
        {"key": "dagster/parent_run_id", "value": run["runId"]},
    ]
    kept = [{"key": tag["key"], "value": tag["value"]} for tag in run["tags"] if not tag["key"].startswith(".")]
    return {
        "mode": "default",
        "runConfigData": run["runConfigYaml"],
        "executionMetadata": {
            "parentRunId": run["runId"], "rootRunId": root, "tags": kept + parents,
        },
        "selector": {
            "repositoryName": origin["repositoryName"],
            "repositoryLocationName": origin["repositoryLocationName"],
            "pipelineName": run["jobName"],
            "assetSelection": run["assetSelection"],
            "assetCheckSelection": None,
        },
    }  # fmt: skip


class _Api:
    def __init__(self, url: str) -> None:
        self._url = url

    def call(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self._url, data=body, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                document = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        assert "errors" not in document, document["errors"]
        return document["data"]

    def answers(self) -> bool:
        try:
            return bool(self.call("query { workspaceOrError { ... on Workspace { locationEntries { id } } } }"))
        except OSError:
            return False

    def ended(self, run: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            state = self.call(STATUS, run=run)["runOrError"]
            return state if state["status"] in ("SUCCESS", "FAILURE", "CANCELED") else None

        return _wait(look, f"the end of run {run}")


def _wait(probe: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PHASE_TIMEOUT_S
    while time.monotonic() < deadline:
        found = probe()
        if found:
            return found
        time.sleep(0.5)
    pytest.fail(f"{what} did not come within {PHASE_TIMEOUT_S} s")
