"""The embedded server: one per home, whoever asks for it, and gone when it was stopped."""

import json
import os
import stat
import subprocess
import sys

import pytest

from mm_assets.settings import read_settings
from mm_assets.store import embedded
from mm_assets.store.objects import open_store

pytestmark = pytest.mark.integration

ASK = """
import sys
from pathlib import Path
from mm_assets.store.embedded import ensure_running
server = ensure_running(Path(sys.argv[1]))
print(server.pid, server.endpoint)
"""


@pytest.fixture
def home(tmp_path):
    yield tmp_path / "home"
    embedded.stop(tmp_path / "home")


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_four_processes_that_start_it_at_once_share_one_server(home):
    command = [sys.executable, "-c", ASK, str(home)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert len(answers) == 1
    assert embedded.running(home).pid == int(answers.pop().split()[0])


def test_data_survives_a_stop_and_nothing_keeps_running(home):
    settings = read_settings({"MM_HOME": str(home)})
    assert embedded.running(home) is None
    store = open_store(settings)
    digest = store.put_bytes(b"kept")
    first = embedded.running(home)
    assert embedded.stop(home)
    assert not is_running(first.pid)
    assert embedded.running(home) is None
    assert not embedded.stop(home)
    assert open_store(settings).get_bytes(digest) == b"kept"
    second = embedded.running(home)
    assert (second.access_key, second.secret_key) == (first.access_key, first.secret_key)


def test_server_that_was_killed_is_started_again(home):
    first = embedded.ensure_running(home)
    os.killpg(first.pid, 9)
    os.waitpid(first.pid, 0)
    second = embedded.ensure_running(home)
    assert second.pid != first.pid
    assert embedded.running(home) == second


def test_two_homes_have_two_servers_with_credentials_of_their_own(home, tmp_path):
    other = tmp_path / "other"
    try:
        servers = [embedded.ensure_running(home), embedded.ensure_running(other)]
    finally:
        embedded.stop(other)
    assert servers[0].endpoint != servers[1].endpoint
    assert servers[0].secret_key != servers[1].secret_key


def test_credentials_are_private_to_the_home(home):
    server = embedded.ensure_running(home)
    for name in ("s3.json", "server.json"):
        assert stat.S_IMODE((home / "store" / name).stat().st_mode) == 0o600
    assert json.loads((home / "store" / "server.json").read_text())["endpoint"] == server.endpoint
    assert set(server.environment()) >= {
        "MM_STORE_URI", "MM_S3_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
    }  # fmt: skip
