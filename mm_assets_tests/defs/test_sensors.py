import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import pytest

from mm_assets.checks.validations import Finding, record_validation
from mm_assets.defs.sensors import alert_sensor, drop_sensor, release_sensor
from mm_assets.errors import SettingsError
from mm_assets.identity.canonical import digest_json
from mm_assets.intake import release_name
from mm_assets.materialize import Workspace
from mm_assets.promotion.record import RegistryRecord, registry_key
from mm_assets.releases.spec import ReleaseSpec, list_releases, read_spec
from mm_assets.settings import Settings
from mm_assets.store.action import Action
from mm_assets.store.commit import Attempt, Committed, StageResult
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import Store

pytestmark = pytest.mark.integration

PushDrop = Callable[..., Path]
OpenBareRelease = Callable[..., ReleaseSpec]


def tick(sensor: dg.SensorDefinition, instance: dg.DagsterInstance, cursor: str | None = None) -> tuple[list[str], str]:
    """Evaluates a sensor as the daemon does; returns the partitions it added and what it said."""
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    added: list[str] = []
    for request in result.dynamic_partitions_requests or []:
        assert request.partitions_def_name == "releases"
        instance.add_dynamic_partitions("releases", request.partition_keys)
        added += request.partition_keys
    return added, result.skip_reason.skip_message if result.skip_reason else ""


def test_a_new_drop_opens_a_release_and_adds_its_partition(
    store: Store, moto_settings: Settings, instance: dg.DagsterInstance, push_samples: PushDrop
) -> None:
    push_samples(store, "shapes", "d1")
    added, _ = tick(drop_sensor(moto_settings), instance)
    assert added == ["shapes-d1"]
    spec = read_spec(store, "shapes-d1")
    assert [(pin.source, pin.drop) for pin in spec.drops] == [("shapes", "d1")]
    assert spec.parent is None
    assert instance.get_dynamic_partitions("releases") == ["shapes-d1"]


@pytest.mark.parametrize("cursor", [None, "shapes-d1", "nonsense"])
def test_a_drop_is_opened_once_whatever_the_cursor_says(
    store: Store, moto_settings: Settings, instance: dg.DagsterInstance, push_samples: PushDrop, cursor: str | None
) -> None:
    push_samples(store, "shapes", "d1")
    sensor = drop_sensor(moto_settings)
    tick(sensor, instance)
    assert tick(sensor, instance, cursor) == ([], "Every complete drop is part of a release.")
    assert list_releases(store) == ["shapes-d1"]


def test_a_drop_that_a_release_of_another_name_pins_is_done(
    store: Store,
    moto_settings: Settings,
    instance: dg.DagsterInstance,
    push_samples: PushDrop,
    open_bare_release: OpenBareRelease,
) -> None:
    push_samples(store, "shapes", "d1")
    open_bare_release(store, "by-hand", num_shards=2, drop="d1")
    assert tick(drop_sensor(moto_settings), instance)[0] == []
    assert list_releases(store) == ["by-hand"]


def test_a_drop_without_its_drop_json_waits(
    store: Store, moto_settings: Settings, instance: dg.DagsterInstance, push_samples: PushDrop
) -> None:
    store.create_key("raw/shapes/d1/index.jsonl", b"{}")
    sensor = drop_sensor(moto_settings)
    assert tick(sensor, instance)[0] == []
    store.client.delete_object(Bucket=store.bucket, Key=f"{store.prefix}/raw/shapes/d1/index.jsonl")
    push_samples(store, "shapes", "d1")
    assert tick(sensor, instance)[0] == ["shapes-d1"]


def test_a_broken_drop_is_named_and_the_others_go_on(
    store: Store, moto_settings: Settings, instance: dg.DagsterInstance, push_samples: PushDrop
) -> None:
    store.create_key("raw/shapes/broken/drop.json", b"{not json")
    push_samples(store, "shapes", "d1")
    sensor = drop_sensor(moto_settings)
    added, said = tick(sensor, instance)
    assert added == ["shapes-d1"]
    assert "drop shapes/broken: was left out: " in said
    assert "drop shapes/broken: was left out: " in tick(sensor, instance)[1]


def test_a_new_drop_adds_to_the_release_in_production(
    store: Store,
    moto_settings: Settings,
    instance: dg.DagsterInstance,
    push_samples: PushDrop,
    open_bare_release: OpenBareRelease,
) -> None:
    open_bare_release(store, "r0", num_shards=2, drop="d0")
    parent = commit_dataset_release(store, moto_settings, "r0")
    put_in_production(store, "r0", parent.manifest_digest)
    push_samples(store, "shapes", "d1")
    tick(drop_sensor(moto_settings), instance)
    pin = read_spec(store, "shapes-d1").parent
    assert pin is not None
    assert (pin.release, pin.digest) == ("r0", parent.manifest_digest)


def test_a_release_opened_by_hand_gets_its_partition_once(
    store: Store, moto_settings: Settings, instance: dg.DagsterInstance, open_bare_release: OpenBareRelease
) -> None:
    open_bare_release(store, "by-hand", num_shards=1)
    sensor = release_sensor(moto_settings)
    assert tick(sensor, instance)[0] == ["by-hand"]
    assert tick(sensor, instance) == ([], "Every open release has its partition.")


def test_a_release_with_too_many_shards_is_named_and_left_out(
    store: Store, moto_settings: Settings, instance: dg.DagsterInstance, open_bare_release: OpenBareRelease
) -> None:
    open_bare_release(store, "big", num_shards=9)
    open_bare_release(store, "small", num_shards=1)
    added, said = tick(release_sensor(moto_settings), instance)
    assert added == ["small"]
    assert "release big: has more shards than this deployment: expected at most 2, got 9." in said


def test_a_deployment_says_which_configuration_new_drops_get(
    store: Store, moto_settings: Settings, instance: dg.DagsterInstance, push_samples: PushDrop, tmp_path: Path
) -> None:
    push_samples(store, "shapes", "d1")
    (tmp_path / "new_drops.yaml").write_text("schema: mm.new_drops/2\nconfiguration: smoke\npolicy: default\n", "utf-8")
    tick(drop_sensor(replace(moto_settings, config_dir=tmp_path)), instance)
    assert read_spec(store, "shapes-d1").configuration["name"] == "smoke"


def test_a_misspelt_setting_of_new_drops_is_an_error_that_names_it(
    store: Store, moto_settings: Settings, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    (tmp_path / "new_drops.yaml").write_text(
        "schema: mm.new_drops/2\nconfigurations: smoke\npolicy: default\n", "utf-8"
    )
    with pytest.raises(SettingsError, match="new_drops.yaml: configuration: Field required"):
        tick(drop_sensor(replace(moto_settings, config_dir=tmp_path)), instance)


def test_a_release_name_that_is_taken_or_too_long_gets_a_digest() -> None:
    assert release_name(("a", "b-c"), set()) == "a-b-c"
    taken = release_name(("a", "b-c"), {"a-b-c"})
    assert taken.startswith("a-b-c-")
    assert taken != release_name(("a-b", "c"), {"a-b-c"})
    assert len(release_name(("s" * 63, "d" * 63), set())) == 63


def test_a_failed_run_is_told_once_with_its_sentence_and_runbook(
    moto_settings: Settings, instance: dg.DagsterInstance, webhook: "Webhook"
) -> None:
    @dg.op
    def stage() -> None:
        raise dg.Failure(description="r1/0000: s3://raw/a.tar does not exist. Restore it.", allow_retries=False)

    @dg.job
    def shard_job() -> None:
        stage()

    result = shard_job.execute_in_process(
        instance=instance, raise_on_error=False, tags={"dagster/partition": "r1|0000"}
    )
    sensor = alert_sensor(replace(moto_settings, alert_webhook=webhook.url))
    for _ in range(2):
        context = dg.build_run_status_sensor_context(
            sensor_name="failed_runs",
            dagster_event=result.get_run_failure_event(),
            dagster_instance=instance,
            dagster_run=result.dagster_run,
        ).for_run_failure()
        sensor(context)
    assert [message["run_id"] for message in webhook.messages] == [result.run_id]
    message = webhook.messages[0]
    assert "r1|0000" in message["text"]
    assert "s3://raw/a.tar does not exist" in message["text"]
    assert message["runbook"] == "docs/runbooks/failed-partition.md"


class Webhook:
    """A chat server that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[dict[str, str]] = []
        messages = self.messages

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/alerts"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    server = Webhook()
    yield server
    server.close()


def commit_dataset_release(store: Store, settings: Settings, release: str) -> Committed:
    """A dataset release without any data that passed its check."""
    action = Action(asset="dataset_release", code=digest_json("code"), params={}, environment={}, inputs=())
    committed = Attempt(store, action, Partition(release=release)).commit_result(StageResult(files=(), stats={}))
    subject = Workspace(settings, store).subject(committed.ref)
    record_validation(store, subject, [Finding(rule="rule", passed=True, detail="fine")])
    return committed


def put_in_production(store: Store, release: str, dataset_release: str) -> None:
    record = RegistryRecord(
        schema="mm.production/2",
        sequence=1,
        state="production",
        release=release,
        model=digest_json("model"),
        dataset_release=dataset_release,
        decision=digest_json("decision"),
        previous=None,
    )
    assert store.create_key(registry_key("production"), record.encode())
