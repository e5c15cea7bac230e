"""The same tests against both servers, and a TCP proxy that loses answers like a real network does."""

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mm_assets.store.client import make_client
from mm_assets.store.embedded import Server
from mm_assets.store.objects import Store
from mm_assets_tests.store.committing import Compute, writing


@pytest.fixture(params=["moto", pytest.param("seaweed", marks=pytest.mark.integration)])
def any_store(request: pytest.FixtureRequest) -> Store:
    """An empty store, once on moto and once on SeaweedFS."""
    return request.getfixturevalue("store" if request.param == "moto" else "seaweed_store")


@dataclass
class Proxy:
    """Forwards to an S3 server; ``lose_put`` and ``swallow_put`` decide what happens to the next PUT.

    ``lose_put``: the server gets the request, the client never gets the answer. ``swallow_put``: the server does not
    get it, ``meanwhile`` runs, and the connection ends. ``vanish``: after the next PUT nobody answers any more.
    """

    server: tuple[str, int]
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    lose_put: bool = False
    swallow_put: bool = False
    vanish: bool = False
    gone: bool = False
    meanwhile: Callable[[], None] = lambda: None
    puts: int = 0

    @property
    def endpoint(self) -> str:
        """Where clients connect."""
        return "http://{}:{}".format(*self.listener.getsockname())

    def run(self) -> None:
        """Accepts connections until the listener is closed."""
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self.server) as server:
            answers = threading.Thread(target=self._answer, args=(server, client), daemon=True)
            answers.start()
            while not self.gone and (data := _receive(client)):
                if data.startswith(b"PUT "):
                    self.puts += 1
                    if self.swallow_put:
                        self.swallow_put = False
                        self.meanwhile()
                        break
                server.sendall(data)
            _close(client, server)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        while data := _receive(server):
            is_final = not data.startswith(b"HTTP/1.1 100")
            if is_final and self.puts and (self.lose_put or self.vanish):
                self.lose_put, self.gone = False, self.vanish
                if self.vanish:
                    self.listener.shutdown(socket.SHUT_RDWR)
                    self.listener.close()
                break
            try:
                client.sendall(data)
            except OSError:
                break
        _close(client, server)


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 16)
    except OSError:
        return b""


def _close(*connections: socket.socket) -> None:
    for connection in connections:
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue


def start_proxy(endpoint: str) -> Proxy:
    """A running proxy in front of ``endpoint``."""
    url = urlsplit(endpoint)
    proxy = Proxy(server=(str(url.hostname), int(url.port or 80)))
    threading.Thread(target=proxy.run, daemon=True).start()
    return proxy


@dataclass(frozen=True)
class Lossy:
    """A store behind a proxy and the same store without it."""

    store: Store
    direct: Store
    proxy: Proxy


@pytest.fixture
def lossy(any_store: Store, request: pytest.FixtureRequest) -> Iterator[Lossy]:
    """``any_store`` through a proxy."""
    endpoint = any_store.client.meta.endpoint_url
    credentials = {"access_key": "test", "secret_key": "test"}
    if "seaweed_server" in request.fixturenames or "seaweed" in request.node.name:
        server: Server = request.getfixturevalue("seaweed_server")
        credentials = {"access_key": server.access_key, "secret_key": server.secret_key}
    proxy = start_proxy(endpoint)
    behind = Store(client=make_client(proxy.endpoint, credentials), bucket=any_store.bucket, prefix=any_store.prefix)
    yield Lossy(store=behind, direct=any_store, proxy=proxy)
    proxy.listener.close()


@pytest.fixture
def write_files(tmp_path: Path) -> Callable[..., Compute]:
    """A stage that writes one file per content, ``file0`` first."""
    return lambda *contents: writing(tmp_path / "out", {f"file{n}": data for n, data in enumerate(contents)})
