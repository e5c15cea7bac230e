"""The first version's store, and configuration ``smoke`` as its release was opened with."""

from dataclasses import replace
from pathlib import Path

import pytest

from mm_assets.configurations import CONFIGURATIONS
from mm_assets.materialize import Workspace
from mm_assets.pipeline import PROMOTION_RULES
from mm_assets.settings import Settings
from mm_assets.store.objects import Store
from mm_assets_tests.stores import LENIENT_PROMOTION


@pytest.fixture(autouse=True)
def smoke_of_the_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """``smoke`` as the fixture's release was opened with: one checkpoint at the end."""
    smoke = CONFIGURATIONS["smoke"]
    monkeypatch.setitem(CONFIGURATIONS, "smoke", replace(smoke, training=replace(smoke.training, checkpoint_every=12)))


@pytest.fixture
def workspace(v1_store: Store, moto_settings: Settings) -> Workspace:
    return Workspace(replace(moto_settings, world_size=1), v1_store)


@pytest.fixture
def lenient(workspace: Workspace, tmp_path: Path) -> Workspace:
    """Opens releases with rules that a model of a few samples can meet."""
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / PROMOTION_RULES).write_text(LENIENT_PROMOTION, encoding="utf-8")
    return Workspace(replace(workspace.settings, config_dir=folder), workspace.store)
