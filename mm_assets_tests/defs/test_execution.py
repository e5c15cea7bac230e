"""Real runs of a real shard on a real instance: what they record, what they refuse, how they fail."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from mm_assets.configurations import ReleaseRequest, open_named_release
from mm_assets.defs import execution
from mm_assets.defs.build import build_definitions
from mm_assets.defs.jobs import SHARD_JOB
from mm_assets.materialize import Workspace
from mm_assets.settings import Settings
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import Store
from mm_assets.store.refs import read_ref, require_ref

pytestmark = pytest.mark.integration

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
SHARD = Partition(release="r1", shard="0001")
#: Row 1 of the drop, and therefore in shard 1 of 2.
OBJECT = "raw/shapes/d1/s001.png"

Run = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def run(store: Store, moto_settings: Settings, instance: dg.DagsterInstance, push_samples: Callable[..., Path]) -> Run:
    """Runs some assets of one partition of a release of two shards."""
    push_samples(store, "shapes", "d1")
    request = ReleaseRequest(release="r1", drops=(("shapes", "d1"),), configuration="smoke", num_shards=2)
    open_named_release(Workspace(moto_settings, store), request)
    instance.add_dynamic_partitions("releases", ["r1"])

    def run(
        *assets: str, key: str = "r1|0001", settings: Settings = moto_settings, tags: dict[str, str] | None = None
    ) -> dg.ExecuteInProcessResult:
        job = build_definitions(settings).resolve_job_def(SHARD_JOB)
        return job.execute_in_process(
            run_config=QUIET,
            instance=instance,
            partition_key=key,
            asset_selection=[dg.AssetKey(asset) for asset in assets],
            tags=tags,
            raise_on_error=False,
        )

    return run


def check_of(instance: dg.DagsterInstance, asset: str, key: str) -> tuple[AssetCheckExecutionRecordStatus, str | None]:
    """Status and sentence of a partition's check as the UI has them."""
    check = dg.AssetCheckKey(dg.AssetKey(asset), "check")
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key(
        [check], partition_filter=PartitionKeyFilter(key=key)
    )[check]
    assert record.event is not None
    assert record.event.dagster_event is not None
    data = record.event.dagster_event.event_specific_data
    return record.status, data.description if isinstance(data, dg.AssetCheckEvaluation) else None


def sentences(result: dg.ExecuteInProcessResult) -> list[str]:
    """What the failed steps of a run say."""
    return [
        event.step_failure_data.user_failure_data.description
        for event in result.all_events
        if event.is_step_failure and event.step_failure_data.user_failure_data
    ]


def test_a_materialization_says_what_was_made_from_what(store: Store, instance: dg.DagsterInstance, run: Run) -> None:
    result = run("snapshot", "features")
    assert result.success
    (materialization,) = result.asset_materializations_for_node("features")
    metadata = {name: entry.value for name, entry in materialization.metadata.items()}
    ref = require_ref(store, "features", SHARD)
    upstream = require_ref(store, "snapshot", SHARD)
    assert list(metadata)[:7] == ["rows_in", "rows_out", "dead_letters", "cached", "wall_s", "cpu_s", "bytes"]
    num_rows = upstream.output("samples.parquet").num_rows
    assert (metadata["rows_in"], metadata["rows_out"], metadata["dead_letters"]) == (num_rows, num_rows, 0)
    assert metadata["cached"] is False
    assert metadata["manifest"] == ref.manifest
    assert metadata["manifest_uri"] == store.object_uri(ref.manifest)
    assert metadata["content"] == ref.content
    assert metadata["fingerprint"] == ref.fingerprint
    for name in ("samples.tar", "samples.parquet"):
        assert upstream.output(name).digest in metadata["inputs"]
    assert "tensors.arrow" in metadata["outputs"]
    assert metadata["preview"]
    assert (materialization.tags or {})["dagster/data_version"] == ref.content
    assert ref.run_id == result.run_id
    assert check_of(instance, "features", "r1|0001")[0] == AssetCheckExecutionRecordStatus.SUCCEEDED


def test_a_second_run_is_cached_and_a_forced_one_is_not(run: Run) -> None:
    def is_cached(**options: dict[str, str]) -> object:
        (materialization,) = run("snapshot", **options).asset_materializations_for_node("snapshot")
        return materialization.metadata["cached"].value

    assert is_cached() is False
    assert is_cached() is True
    assert is_cached(tags={"mm/force": "true"}) is False


def test_a_damaged_object_turns_the_check_of_its_shard_red_by_name(
    store: Store, moto_settings: Settings, instance: dg.DagsterInstance, run: Run
) -> None:
    sound = store.read_key(OBJECT)
    assert sound is not None
    assert store.replace_key(OBJECT, b"something else", sound.etag)

    result = run("snapshot", "features")
    assert not result.success
    (sentence,) = sentences(result)
    assert OBJECT in sentence
    assert check_of(instance, "snapshot", "r1|0001") == (AssetCheckExecutionRecordStatus.FAILED, sentence)
    assert read_ref(store, "snapshot", SHARD).ref is None
    assert instance.get_materialized_partitions(dg.AssetKey("snapshot")) == set()
    assert run("snapshot", key="r1|0000").success

    damaged = store.read_key(OBJECT)
    assert damaged is not None
    assert store.replace_key(OBJECT, sound.data, damaged.etag)
    assert run("snapshot", "features").success
    assert check_of(instance, "snapshot", "r1|0001")[0] == AssetCheckExecutionRecordStatus.SUCCEEDED
    assert Workspace(moto_settings, store).require_passed("features", SHARD)


def test_an_object_damaged_after_its_shard_was_made_turns_the_check_red_again(
    store: Store, instance: dg.DagsterInstance, run: Run
) -> None:
    assert run("snapshot").success
    sound = store.read_key(OBJECT)
    assert sound is not None
    assert store.replace_key(OBJECT, b"something else", sound.etag)
    assert not run("snapshot", tags={"mm/force": "true"}).success
    status, sentence = check_of(instance, "snapshot", "r1|0001")
    assert status == AssetCheckExecutionRecordStatus.FAILED
    assert OBJECT in str(sentence)


def test_a_stage_refuses_an_input_that_was_never_checked(store: Store, run: Run) -> None:
    (sentence,) = sentences(run("features"))
    assert "snapshot r1/0001: is not materialized" in sentence
    assert read_ref(store, "features", SHARD).ref is None


def test_a_shard_that_its_release_does_not_have_fails_with_one_sentence(run: Run, moto_settings: Settings) -> None:
    result = run("snapshot", key="r1|0003", settings=replace(moto_settings, num_shards=4))
    (sentence,) = sentences(result)
    assert sentence.startswith("r1/0003: is not a shard of release r1: expected one of its 2 shards (0000 to 0001)")


def test_a_store_that_does_not_answer_is_tried_again_and_then_named(
    run: Run, moto_settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "RETRY_WAIT_S", 0)
    result = run("snapshot", settings=replace(moto_settings, s3_endpoint="http://127.0.0.1:9"))
    retries = [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY]
    assert len(retries) == execution.MAX_RETRIES
    (sentence,) = sentences(result)
    assert "the store does not answer" in sentence
    status, said = check_of(instance, "snapshot", "r1|0001")
    assert (status, said) == (AssetCheckExecutionRecordStatus.PLANNED, None)
