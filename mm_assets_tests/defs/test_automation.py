"""The whole chain, tick by tick: what happened is written to a real instance as a run would write it."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from mm_assets.defs.build import build_definitions
from mm_assets.settings import Settings
from mm_assets.store.objects import Store

SHARD_LEVEL = ("snapshot", "features", "embeddings")
RELEASE_LEVEL = ("dataset_release", "batch_plan", "model", "evaluation", "promotion", "registration")
#: Two of the four shards this deployment has.
SHARDS = ("r1|0000", "r1|0001")

Requested = dict[str, list[str]]


class Deployment:
    """One deployment: ticks of its automation sensor, and runs that somebody made."""

    def __init__(self, definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self._definitions = definitions
        self._instance = instance
        self._cursor = None

    def open(self, release: str) -> None:
        self._instance.add_dynamic_partitions("releases", [release])

    def tick(self) -> Requested:
        result = dg.evaluate_automation_conditions(self._definitions, self._instance, cursor=self._cursor)
        self._cursor = result.cursor
        return {
            entry.key.to_user_string(): sorted(entry.true_subset.expensively_compute_partition_keys())
            for entry in result.results
            if entry.true_subset.size
        }

    def run(self, key: str, *assets: str, failed_check: str | None = None) -> None:
        """A run that materializes the assets in order; their checks pass, but for one at which Dagster ends it."""

        @dg.op(name="stage_" + "_".join(assets))
        def stage():
            for asset in assets:
                yield dg.AssetMaterialization(asset, partition=key)
                yield self._check(asset, key, passed=asset != failed_check)
            yield dg.Output(None)

        @dg.job(name="somebody")
        def job() -> None:
            stage()

        job.execute_in_process(instance=self._instance, raise_on_error=False)

    def _check(self, asset: str, key: str, *, passed: bool) -> dg.AssetCheckEvaluation:
        records = self._instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[key]), limit=1
        ).records
        target = (
            AssetCheckEvaluationTargetMaterializationData(
                storage_id=records[0].storage_id, run_id=records[0].run_id, timestamp=records[0].timestamp
            )
            if records
            else None
        )
        return dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(asset),
            check_name="check",
            passed=passed,
            partition=key,
            blocking=True,
            target_materialization_data=target,
        )


@pytest.fixture
def deployment(store: Store, moto_settings: Settings, open_bare_release: Callable[..., object]) -> Iterator[Deployment]:
    open_bare_release(store, "r1", num_shards=len(SHARDS))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Deployment(build_definitions(replace(moto_settings, num_shards=4)), instance)


def test_a_release_is_driven_from_its_shards_to_its_promotion(deployment: Deployment) -> None:
    assert deployment.tick() == {}
    deployment.open("r1")
    assert deployment.tick() == {asset: list(SHARDS) for asset in SHARD_LEVEL}
    assert deployment.tick() == {}
    deployment.run("r1|0000", *SHARD_LEVEL)
    assert deployment.tick() == {}
    deployment.run("r1|0001", *SHARD_LEVEL)
    assert deployment.tick() == {asset: ["r1"] for asset in RELEASE_LEVEL}
    deployment.run("r1", *RELEASE_LEVEL)
    assert deployment.tick() == {}


def test_a_release_whose_partition_came_before_the_first_tick_is_driven_too(deployment: Deployment) -> None:
    deployment.open("r1")
    assert deployment.tick() == {asset: list(SHARDS) for asset in SHARD_LEVEL}


def test_a_failed_check_stops_the_release_until_its_shard_is_run_again(deployment: Deployment) -> None:
    deployment.open("r1")
    deployment.tick()
    deployment.run("r1|0000", *SHARD_LEVEL)
    deployment.run("r1|0001", *SHARD_LEVEL, failed_check="embeddings")
    assert deployment.tick() == {}
    assert deployment.tick() == {}
    deployment.run("r1|0001", "embeddings")
    assert deployment.tick() == {asset: ["r1"] for asset in RELEASE_LEVEL}


def test_repairing_the_one_asset_that_failed_brings_the_rest_of_its_shard(deployment: Deployment) -> None:
    deployment.open("r1")
    deployment.tick()
    deployment.run("r1|0000", *SHARD_LEVEL)
    deployment.run("r1|0001", "snapshot", failed_check="snapshot")
    assert deployment.tick() == {}
    deployment.run("r1|0001", "snapshot")
    assert deployment.tick() == {"features": ["r1|0001"], "embeddings": ["r1|0001"]}
    assert deployment.tick() == {}
    deployment.run("r1|0001", "features", "embeddings")
    assert deployment.tick() == {asset: ["r1"] for asset in RELEASE_LEVEL}


def test_a_failed_release_level_check_stops_what_follows(deployment: Deployment) -> None:
    deployment.open("r1")
    deployment.tick()
    for shard in SHARDS:
        deployment.run(shard, *SHARD_LEVEL)
    deployment.tick()
    deployment.run("r1", "dataset_release", failed_check="dataset_release")
    assert deployment.tick() == {}
    deployment.run("r1", "dataset_release")
    assert deployment.tick() == {asset: ["r1"] for asset in RELEASE_LEVEL[1:]}


def test_an_experiment_starts_at_its_freeze(
    deployment: Deployment, store: Store, open_bare_release: Callable[..., object]
) -> None:
    open_bare_release(store, "e1", data_of="r1")
    deployment.open("e1")
    assert deployment.tick() == {asset: ["e1"] for asset in RELEASE_LEVEL}
    assert deployment.tick() == {}
    deployment.run("e1", *RELEASE_LEVEL)
    assert deployment.tick() == {}


def test_an_experiment_does_not_wait_for_shards_of_another_release(
    deployment: Deployment, store: Store, open_bare_release: Callable[..., object]
) -> None:
    deployment.open("r1")
    assert deployment.tick() == {asset: list(SHARDS) for asset in SHARD_LEVEL}
    open_bare_release(store, "e1", data_of="r1")
    deployment.open("e1")
    assert deployment.tick() == {asset: ["e1"] for asset in RELEASE_LEVEL}


def test_a_failed_check_of_the_promotion_leaves_the_registry_alone(deployment: Deployment) -> None:
    deployment.open("r1")
    deployment.tick()
    for shard in SHARDS:
        deployment.run(shard, *SHARD_LEVEL)
    deployment.tick()
    deployment.run("r1", *RELEASE_LEVEL[:-1], failed_check="promotion")
    assert deployment.tick() == {}
    deployment.run("r1", "promotion")
    assert deployment.tick() == {"registration": ["r1"]}
