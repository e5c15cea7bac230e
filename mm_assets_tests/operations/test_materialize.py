from pathlib import Path

import dagster as dg
import pytest

from mm_assets.errors import ObjectMissingError, UsageError
from mm_assets.operations.instance import prepare_home
from mm_assets.operations.run_release import RunRequest, run_release
from mm_assets.settings import Settings
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import Store

pytestmark = pytest.mark.integration

#: Row 1 of the drop, and therefore in shard 1 of 2.
OBJECT = "raw/shapes/d1/s001.png"
SHARDS = [Partition(release="r1", shard=shard) for shard in ("0000", "0001")]


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_release_that_is_current_is_skipped_without_a_run(
    release: str, moto_settings: Settings, quiet_instance: dg.DagsterInstance, parallel: int
) -> None:
    request = RunRequest(release=release, stages=("snapshot",), parallel=parallel)
    events: list[tuple[str, Partition, str]] = []

    def on_event(asset: str, partition: Partition, state: str, seconds: float) -> None:
        assert seconds >= 0
        events.append((asset, partition, state))

    first = run_release(quiet_instance, request, settings=moto_settings, on_event=on_event)
    assert (first.computed, first.cached, first.failed) == (2, 0, ())
    for shard in SHARDS:
        assert [state for _, of, state in events if of == shard] == ["started", "computed"]
    if parallel == 1:
        assert [of for _, of, _ in events] == [shard for shard in SHARDS for _ in range(2)]
    assert quiet_instance.get_dynamic_partitions("releases") == ["r1"]
    assert [run.job_name for run in quiet_instance.get_runs()] == ["shard_job", "shard_job"]

    events.clear()
    second = run_release(quiet_instance, request, settings=moto_settings, on_event=on_event)
    assert (second.computed, second.cached, second.failed) == (0, 2, ())
    assert events == [("snapshot", shard, "cached") for shard in SHARDS]
    assert quiet_instance.get_runs_count() == 2


def test_a_partition_that_another_instance_made_is_shown_in_this_one(
    release: str, moto_settings: Settings, quiet_instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    run_release(quiet_instance, RunRequest(release=release, stages=("snapshot",)), settings=moto_settings)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as other:
        report = run_release(other, RunRequest(release=release, stages=("snapshot",)), settings=moto_settings)
        assert (report.computed, report.cached) == (0, 2)
        assert other.get_materialized_partitions(dg.AssetKey("snapshot")) == {"r1|0000", "r1|0001"}


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_damaged_shard_is_reported_and_the_others_go_on(
    store: Store, release: str, moto_settings: Settings, quiet_instance: dg.DagsterInstance, parallel: int
) -> None:
    current = store.read_key(OBJECT)
    assert current is not None
    assert store.replace_key(OBJECT, b"something else", current.etag)
    states: list[tuple[Partition, str]] = []
    report = run_release(
        quiet_instance,
        RunRequest(release=release, stages=("snapshot",), parallel=parallel),
        settings=moto_settings,
        on_event=lambda asset, partition, state, seconds: states.append((partition, state)),
    )
    assert report.computed == 1
    (failure,) = report.failed
    assert (failure.asset, failure.partition) == ("snapshot", SHARDS[1])
    assert failure.sentence.startswith(OBJECT)
    assert (SHARDS[1], "failed") in states
    assert (SHARDS[0], "computed") in states


def test_force_computes_what_is_known(
    release: str, moto_settings: Settings, quiet_instance: dg.DagsterInstance
) -> None:
    run_release(quiet_instance, RunRequest(release=release, stages=("snapshot",)), settings=moto_settings)
    report = run_release(
        quiet_instance, RunRequest(release=release, stages=("snapshot",), force=True), settings=moto_settings
    )
    assert (report.computed, report.cached) == (2, 0)


def test_an_unknown_stage_or_release_is_named(
    release: str, moto_settings: Settings, quiet_instance: dg.DagsterInstance
) -> None:
    with pytest.raises(UsageError, match="stage polishing: is unknown: expected one of snapshot, features"):
        run_release(quiet_instance, RunRequest(release=release, stages=("polishing",)), settings=moto_settings)
    with pytest.raises(ObjectMissingError, match="release r9: is not open"):
        run_release(quiet_instance, RunRequest(release="r9"), settings=moto_settings)


def test_a_home_keeps_the_dagster_yaml_it_has(moto_settings: Settings) -> None:
    home = prepare_home(moto_settings)
    assert "max_concurrent_runs: 2" in (home / "dagster.yaml").read_text("utf-8")
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n", "utf-8")
    assert (prepare_home(moto_settings) / "dagster.yaml").read_text("utf-8") == "telemetry:\n  enabled: false\n"


def test_the_instance_of_one_machine_sends_nothing_home_and_logs_the_package(
    quiet_instance: dg.DagsterInstance,
) -> None:
    assert not quiet_instance.telemetry_enabled
    assert quiet_instance.managed_python_loggers == ["mm_assets"]
    assert quiet_instance.run_retries_enabled
    assert quiet_instance.run_retries_max_retries == 1
