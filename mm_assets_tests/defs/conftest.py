"""A real store, a real Dagster instance on disk, and small real drops."""

from collections.abc import Callable, Iterator

import dagster as dg
import pytest

from mm_assets.operations.instance import prepare_home
from mm_assets.releases.spec import DropPin, ReleaseSpec, write_spec
from mm_assets.settings import Settings
from mm_assets.store.objects import Store

OpenBareRelease = Callable[..., ReleaseSpec]


@pytest.fixture
def instance(moto_settings: Settings) -> Iterator[dg.DagsterInstance]:
    """The instance of ``moto_settings``: SQLite under its home."""
    with dg.DagsterInstance.from_config(str(prepare_home(moto_settings))) as instance:
        yield instance


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
