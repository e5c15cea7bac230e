"""Fixtures that start servers or make blobs: no test talks to a mock of our own code."""

import io
import os
import sys
import uuid
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from moto.server import ThreadedMotoServer
from PIL import Image

from mm_assets.drops.create import create_drop, push_drop
from mm_assets.settings import Settings, read_settings
from mm_assets.store import embedded
from mm_assets.store.client import make_client
from mm_assets.store.objects import Store
from mm_assets_tests.stores import load_store, read_contents

if TYPE_CHECKING:
    import dagster as dg

LABELS = ("circle", "square")
LANGUAGES = ("en", "fr")
NUM_SAMPLES = 24
SIDE = 24

#: A store that the first version of the project wrote: drop ``emoji/2026-11`` with nine emoji, and release ``r1`` of it
#: with two shards and the configuration smoke (one checkpoint, not three), promoted to production by low thresholds.
#: Left out are the keys below ``checkpoints/``: they continue an interrupted training, and this one is finished.
FIRST_VERSION = Path(__file__).parent / "fixtures" / "store_v1.tar.xz"

MOTO_KEYS = {"access_key": "test", "secret_key": "test"}  # moto accepts any


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that run whole pipelines come first: what takes minutes must not be all that is left in the end."""
    long = {item.path for item in items if item.get_closest_marker("e2e")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True)
def keep_torch_as_it_was() -> Iterator[None]:
    """The strict mode of training and evaluation is for a whole process; other tests share this one.

    Hypothesis, for one, refuses to draw floats in a thread that flushes denormals.
    """
    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(os.cpu_count() or 1)
        torch.use_deterministic_algorithms(False)
        torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """The address of an S3 server that enforces conditional writes, in this process."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(moto_endpoint: str) -> Store:
    """An empty store on moto."""
    client = make_client(moto_endpoint, MOTO_KEYS)
    bucket = f"b-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=bucket)
    return Store(client=client, bucket=bucket, prefix="store", raw_buckets=("elsewhere-*",))


@pytest.fixture
def v1_store(store: Store) -> Store:
    """``store`` with everything that the first version wrote; see ``FIRST_VERSION``."""
    load_store(store, read_contents(FIRST_VERSION))
    return store


@pytest.fixture(scope="session")
def seaweed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Server]:
    """A real SeaweedFS server."""
    home = tmp_path_factory.mktemp("seaweed")
    yield embedded.ensure_running(home)
    embedded.stop(home)


@pytest.fixture
def seaweed_env(seaweed_server: embedded.Server) -> dict[str, str]:
    """Variables that point a process at an empty store on SeaweedFS."""
    return seaweed_server.environment() | {"MM_STORE_URI": f"s3://{seaweed_server.bucket}/{uuid.uuid4().hex}"}


@pytest.fixture
def seaweed_store(seaweed_server: embedded.Server, seaweed_env: dict[str, str]) -> Store:
    """The store that ``seaweed_env`` names."""
    keys = {"access_key": seaweed_server.access_key, "secret_key": seaweed_server.secret_key}
    client = make_client(seaweed_server.endpoint, keys)
    prefix = seaweed_env["MM_STORE_URI"].rsplit("/", 1)[1]
    return Store(client=client, bucket=seaweed_server.bucket, prefix=prefix, raw_buckets=("elsewhere-*",))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a fresh home; the store they name is the home's embedded one."""
    return read_settings({"MM_HOME": str(tmp_path / "home"), "MM_NUM_SHARDS": "4"})


@pytest.fixture
def moto_settings(store: Store, moto_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a deployment with two shards on the test's ``store``; processes it starts see the same."""
    environment = {
        "MM_STORE_URI": f"s3://{store.bucket}/{store.prefix}",
        "MM_S3_ENDPOINT": moto_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "MM_NUM_SHARDS": "2",
        "MM_HOME": str(tmp_path / "home"),
        "DAGSTER_HOME": str(tmp_path / "home" / "dagster"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return read_settings(environment)


@pytest.fixture
def instance(moto_settings: Settings) -> "Iterator[dg.DagsterInstance]":
    """The Dagster instance of ``moto_settings``: SQLite under its home."""
    # Imported here: most tests do without Dagster, whose import takes a second.
    import dagster as dg

    from mm_assets.operations.instance import prepare_home

    with dg.DagsterInstance.from_config(str(prepare_home(moto_settings))) as instance:
        yield instance


@pytest.fixture
def push_samples(tmp_path: Path) -> Callable[..., Path]:
    """Pushes a drop of samples with text, picture and sound; returns its local folder."""

    def push(store: Store, source: str, drop: str, *, num_samples: int = NUM_SAMPLES, side: int = SIDE) -> Path:
        return push_shapes(store, tmp_path, source, drop, num_samples=num_samples, side=side)

    return push


def push_shapes(
    store: Store,
    parent: Path,
    source: str,
    drop: str,
    *,
    num_samples: int = NUM_SAMPLES,
    num_broken: int = 0,
    side: int = SIDE,
) -> Path:
    """Pushes a drop of samples with text, picture and sound, written below ``parent``; the first are broken.

    Args:
        side: Of a picture, pixels, a multiple of ``SIDE``; from twice that on noise of 6 bits makes it 2 bytes a pixel.
    """
    folder = parent / source / drop
    folder.mkdir(parents=True)
    rows = [_write_sample(folder, number, side) for number in range(num_samples)]
    for number in range(num_broken):
        (folder / f"s{number:03d}.png").write_bytes(b"not a picture")
    (folder / "index.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    create_drop(folder, source, drop)
    push_drop(store, folder)
    return folder


def _write_sample(folder: Path, number: int, side: int) -> str:
    label, language = LABELS[number % 2], LANGUAGES[number // 2 % 2]
    key = f"s{number:03d}"
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 255, size=(SIDE, SIDE, 3), dtype=np.uint8)
    if side > SIDE:
        large = pixels.repeat(side // SIDE, axis=0).repeat(side // SIDE, axis=1) // 4 * 3
        pixels = large + rng.integers(0, 64, size=large.shape, dtype=np.uint8)
    Image.fromarray(pixels).save(folder / f"{key}.png")
    (folder / f"{key}.wav").write_bytes(melody(number))
    return (
        f'{{"id": "{key}", "text": "{label} number {number}", "image": "{key}.png", "audio": "{key}.wav", '
        f'"label": "{label}", "language": "{language}", "group": "g{number // 2}"}}'
    )


def melody(seed: int) -> bytes:
    """Half a second of eight notes as no other seed plays them: single tones are near to one another."""
    rng = np.random.default_rng(seed)
    notes = zip(rng.uniform(200, 4_000, 8), rng.uniform(1.5, 4, 8), strict=True)
    seconds = np.arange(1_000) / 16_000
    samples = np.concatenate([np.sin(2 * np.pi * pitch * seconds) * 10**loudness for pitch, loudness in notes])
    samples = samples.astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def wav_bytes(samples: np.ndarray, rate: int, kind: str = "WAV", subtype: str | None = "PCM_16") -> bytes:
    """A clip in any container libsndfile writes."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def picture_bytes(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture in any container Pillow writes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tone(frequency: float, seconds: float, rate: int) -> np.ndarray:
    """A sine at half of full scale, float32."""
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def blocks(seed: int, size: int = 72) -> Image.Image:
    """A picture of coloured rectangles that looks like no other seed's."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture
def to_wav() -> Callable[..., bytes]:
    """``wav_bytes``."""
    return wav_bytes


@pytest.fixture
def to_picture() -> Callable[..., bytes]:
    """``picture_bytes``."""
    return picture_bytes


@pytest.fixture
def make_tone() -> Callable[..., np.ndarray]:
    """``tone``."""
    return tone


@pytest.fixture
def make_blocks() -> Callable[..., Image.Image]:
    """``blocks``."""
    return blocks
