"""What the UI, the API and other people's scripts know by name."""

import subprocess
import sys

import dagster as dg
import pytest

from mm_assets.defs.build import build_definitions
from mm_assets.pipeline import ASSETS
from mm_assets.settings import Settings, read_settings

GROUPS = {
    "snapshot": "snapshot",
    "features": "features",
    "embeddings": "features",
    "dataset_release": "release",
    "batch_plan": "training",
    "model": "training",
    "evaluation": "evaluation",
    "promotion": "promotion",
    "registration": "promotion",
}


@pytest.fixture
def definitions(settings: Settings) -> dg.Definitions:
    return build_definitions(settings)


def test_the_names_others_rely_on_are_these(definitions: dg.Definitions) -> None:
    repository = definitions.get_repository_def()
    graph = repository.asset_graph
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == set(GROUPS)
    assert {(key.asset_key.to_user_string(), key.name) for key in graph.asset_check_keys} == {
        (name, "check") for name in GROUPS
    }
    assert {job.name for job in repository.get_all_jobs() if not job.name.startswith("__")} == {
        "shard_job",
        "release_job",
    }
    assert {sensor.name for sensor in repository.sensor_defs} == {
        "automation",
        "new_drops",
        "open_releases",
        "failed_runs",
    }


def test_a_deployment_on_kubernetes_has_a_janitor_too() -> None:
    settings = read_settings({"MM_LAUNCHER": "kubernetes", "MM_STORE_URI": "s3://bucket/store"})
    sensors = build_definitions(settings).get_repository_def().sensor_defs
    assert "janitor" in {sensor.name for sensor in sensors}


def test_an_asset_is_in_the_group_of_its_stage(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    assert {name: graph.get(dg.AssetKey(name)).group_name for name in ASSETS} == GROUPS


def test_every_asset_is_described_versioned_owned_and_automated(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for name in ASSETS:
        node = graph.get(dg.AssetKey(name))
        assert node.description, name
        assert node.code_version, name
        assert node.owners, name
        assert node.kinds, name
        assert node.automation_condition is not None, name


def test_every_check_blocks_and_has_the_partitions_of_its_asset(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for name in ASSETS:
        check = graph.get(dg.AssetCheckKey(dg.AssetKey(name), "check"))
        assert check.blocking, name
        assert check.partitions_def == graph.get(dg.AssetKey(name)).partitions_def, name


def test_no_checked_asset_has_a_backfill_policy(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    assert [name for name in ASSETS if graph.get(dg.AssetKey(name)).backfill_policy] == []


def test_every_sensor_runs_unless_someone_stops_it(definitions: dg.Definitions) -> None:
    sensors = definitions.get_repository_def().sensor_defs
    assert {sensor.default_status for sensor in sensors} == {dg.DefaultSensorStatus.RUNNING}


def test_a_release_depends_on_all_its_shards(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    mapping = graph.get_partition_mapping(dg.AssetKey("dataset_release"), dg.AssetKey("snapshot"))
    assert mapping == dg.MultiToSingleDimensionPartitionMapping("release")


@pytest.mark.integration
def test_loading_the_definitions_touches_neither_torch_nor_the_store(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    program = "import sys, mm_assets.definitions; print('torch' in sys.modules, 'great_expectations' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={"MM_HOME": str(home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split() == ["False", "False"]
    assert list(home.iterdir()) == []
