"""Releases without data."""

from collections.abc import Callable

import pytest

from mm_assets.releases.spec import SCHEMA, DropPin, ReleasePin, ReleaseSpec, write_spec
from mm_assets.store.objects import Store

OpenBareRelease = Callable[..., ReleaseSpec]


@pytest.fixture
def open_bare_release() -> OpenBareRelease:
    """Opens a release that pins names only: enough for everything that does not read the data.

    With ``data_of`` it is an experiment, which has neither drops nor shards of its own.
    """

    def open_release(
        store: Store, release: str, *, num_shards: int = 0, drop: str = "d1", data_of: str | None = None
    ) -> ReleaseSpec:
        digest = "sha256:" + "0" * 64
        pin = DropPin(source="shapes", drop=drop, digest=digest, source_digest=digest)
        spec = ReleaseSpec(
            schema=SCHEMA,
            release=release,
            drops=[] if data_of else [pin],
            parent=None,
            data_of=ReleasePin(release=data_of, digest=digest) if data_of else None,
            exclusions=[],
            policy={"name": "all", "sql": "true"},
            rules={},
            encoder={"kind": "none", "digest": digest},
            seed=1,
            num_shards=num_shards,
            configuration={},
        )
        write_spec(store, spec)
        return spec

    return open_release
