"""A release to run, and the instance it runs in."""

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from mm_assets.configurations import ReleaseRequest, open_named_release
from mm_assets.materialize import Workspace
from mm_assets.operations.instance import instance_for
from mm_assets.settings import Settings
from mm_assets.store.objects import Store


@pytest.fixture
def quiet_instance(moto_settings: Settings) -> Iterator[dg.DagsterInstance]:
    """What `mm run` runs in."""
    with instance_for(moto_settings) as instance:
        yield instance


@pytest.fixture
def release(store: Store, moto_settings: Settings, push_samples: Callable[..., Path]) -> str:
    """A release of two shards, of which nothing is materialized."""
    push_samples(store, "shapes", "d1")
    request = ReleaseRequest(release="r1", drops=(("shapes", "d1"),), configuration="smoke", num_shards=2)
    open_named_release(Workspace(moto_settings, store), request)
    return "r1"
