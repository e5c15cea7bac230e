"""``mm ui``: serves the definitions and, when it ends, leaves nothing behind."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_assets.store import embedded

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

QUERY = {"query": "{ assetNodes { assetKey { path } groupName } }"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def processes_of(home: Path) -> dict[int, str]:
    """Every process whose environment or command line names ``home``."""
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            if str(home).encode() in command + (folder / "environ").read_bytes():
                found[int(folder.name)] = command.replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def ask(port: int) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        data=json.dumps(QUERY).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def wait_for_assets(process: subprocess.Popen[bytes], port: int) -> dict[str, Any]:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert process.poll() is None, "mm ui ended by itself"
        try:
            answer = ask(port)
            if answer["data"]["assetNodes"]:
                return answer
        except OSError:
            pass
        time.sleep(1)
    raise AssertionError("the UI did not come up")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_ui_serves_every_asset_and_leaves_no_process_behind(
    make_workplace: Callable[[str], Any], number: signal.Signals
) -> None:
    place = make_workplace("ui")
    home, port = place.folder / ".mm", free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "mm_assets.cli", "ui", "--port", str(port)],
        env=place.environment,
        cwd=place.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        answer = wait_for_assets(process, port)
        groups = {node["assetKey"]["path"][0]: node["groupName"] for node in answer["data"]["assetNodes"]}
        assert groups["snapshot"] == "snapshot"
        assert groups["model"] == "training"
        assert groups["registration"] == "promotion"
        assert embedded.running(home) is not None
        process.send_signal(number)
        assert process.wait(60) == 0
        # A process that is just ending may still be listed.
        deadline = time.monotonic() + 10
        while processes_of(home) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert processes_of(home) == {}
        assert embedded.running(home) is None
    finally:
        process.kill()
        process.wait()


def test_a_taken_port_is_bad_usage(make_workplace: Callable[[str], Any]) -> None:
    place = make_workplace("port")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        answer = place.run("mm", "ui", "--port", str(taken.getsockname()[1]))
    assert answer.returncode == 2
    assert "cannot be used" in answer.stderr
    assert processes_of(place.folder / ".mm") == {}
