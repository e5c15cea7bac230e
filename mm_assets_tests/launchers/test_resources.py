from dataclasses import replace
from pathlib import Path

import pytest

from mm_assets.configurations import CONFIGURATIONS, PipelineConfig
from mm_assets.errors import SpecError
from mm_assets.identity.canonical import to_json
from mm_assets.launchers.resources import Toleration, resources_for
from mm_assets.pipeline import ASSETS
from mm_assets.settings import Settings

PACKAGED_MODEL_DEADLINE_S = 86400


def test_a_configuration_without_resources_gets_those_of_the_packaged_file(settings: Settings) -> None:
    resources = resources_for("model", {"placement": {"log_every": 3}}, settings)
    assert (resources.max_runtime_s, resources.accelerators) == (PACKAGED_MODEL_DEADLINE_S, 0)
    assert resources_for("embeddings", {}, settings).memory_bytes == 4 << 30


def test_a_deployment_s_own_file_replaces_the_packaged_one(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "resources.yaml").write_text("model: {accelerators: 8, node_selector: {pool: h200}}\n")
    resources = resources_for("model", {}, replace(settings, config_dir=tmp_path))
    assert (resources.accelerators, resources.node_selector) == (8, {"pool": "h200"})


def test_resources_of_a_placement_override_only_what_they_name(settings: Settings) -> None:
    wanted = {"accelerators": 1, "tolerations": [{"key": "gpu"}], "launch_deadline_s": 5}
    resources = resources_for("model", {"placement": {"resources": {"model": wanted}}}, settings)
    assert resources.accelerators == 1
    assert resources.tolerations == (Toleration(key="gpu"),)
    assert resources.launch_deadline_s == 5
    assert resources.max_runtime_s == PACKAGED_MODEL_DEADLINE_S


@pytest.mark.parametrize(
    ("wanted", "named"),
    [({"memory": 1}, "memory"), ({"accelerators": "many"}, "accelerators"), ({"cpus": None}, "cpus")],
)
def test_a_misspelt_or_wrongly_typed_resource_is_named(
    wanted: dict[str, object], named: str, settings: Settings
) -> None:
    with pytest.raises(SpecError, match=f"resources of model: {named} is unusable"):
        resources_for("model", {"placement": {"resources": {"model": wanted}}}, settings)


def test_a_file_that_is_no_mapping_is_named(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "resources.yaml").write_text("- model\n")
    with pytest.raises(SpecError, match=r"resources\.yaml: resources are unusable: expected a mapping"):
        resources_for("model", {}, replace(settings, config_dir=tmp_path))


LAUNCHED = [asset.name for asset in ASSETS.values() if asset.is_launched]


@pytest.mark.parametrize("config", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
@pytest.mark.parametrize("asset", LAUNCHED)
def test_every_configuration_of_ours_asks_for_resources_that_exist(
    config: PipelineConfig, asset: str, settings: Settings
) -> None:
    sections = to_json(config)
    assert isinstance(sections, dict)
    assert resources_for(asset, sections, settings).cpus > 0
