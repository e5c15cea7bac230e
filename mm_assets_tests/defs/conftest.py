"""A real store, a real Dagster instance on disk, and small real drops."""

import io
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from PIL import Image

from mm_assets.drops.create import create_drop, push_drop
from mm_assets.operations.instance import prepare_home
from mm_assets.releases.spec import DropPin, ReleaseSpec, write_spec
from mm_assets.settings import Settings, read_settings
from mm_assets.store.objects import Store

OpenBareRelease = Callable[..., ReleaseSpec]

LABELS = ("circle", "square")
LANGUAGES = ("en", "fr")
NUM_SAMPLES = 24


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
def instance(moto_settings: Settings) -> Iterator[dg.DagsterInstance]:
    """The instance of ``moto_settings``: SQLite under its home."""
    with dg.DagsterInstance.from_config(str(prepare_home(moto_settings))) as instance:
        yield instance


@pytest.fixture
def push_samples(tmp_path: Path) -> Callable[..., Path]:
    """Pushes a drop of samples with text, picture and sound; returns its local folder."""

    def push(store: Store, source: str, drop: str, *, num_samples: int = NUM_SAMPLES) -> Path:
        folder = tmp_path / source / drop
        folder.mkdir(parents=True)
        rows = [_write_sample(folder, number) for number in range(num_samples)]
        (folder / "index.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
        create_drop(folder, source, drop)
        push_drop(store, folder)
        return folder

    return push


@pytest.fixture
def open_bare_release() -> OpenBareRelease:
    """Opens a release that pins drops by name only: enough for everything that does not read the data."""

    def open_release(store: Store, release: str, *, num_shards: int, drop: str = "d1") -> ReleaseSpec:
        digest = "sha256:" + "0" * 64
        spec = ReleaseSpec(
            schema="mm.release/1",
            release=release,
            drops=[DropPin(source="shapes", drop=drop, digest=digest, source_digest=digest)],
            parent=None,
            exclusions=[],
            policy={"name": "all", "sql": "true"},
            encoder={"kind": "none", "digest": digest},
            seed=1,
            num_shards=num_shards,
            recipe={},
        )
        write_spec(store, spec)
        return spec

    return open_release


def _write_sample(folder: Path, number: int) -> str:
    label, language = LABELS[number % 2], LANGUAGES[number // 2 % 2]
    key = f"s{number:03d}"
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 255, size=(24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / f"{key}.png")
    (folder / f"{key}.wav").write_bytes(_tone(220 + 20 * number))
    return (
        f'{{"id": "{key}", "text": "{label} number {number}", "image": "{key}.png", "audio": "{key}.wav", '
        f'"label": "{label}", "language": "{language}", "group": "g{number // 2}"}}'
    )


def _tone(frequency: float) -> bytes:
    seconds = np.arange(8_000) / 16_000
    samples = (np.sin(2 * np.pi * frequency * seconds) * 12_000).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()
