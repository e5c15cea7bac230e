"""What is unchanged is not computed again: experiments, other names and other placement on a small drop."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any

import dagster as dg
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from mm_assets.configurations import (
    CONFIGURATIONS,
    SMOKE,
    PipelineConfig,
    PlacementConfig,
    ReleaseRequest,
    open_named_release,
)
from mm_assets.demo.data import DROP, SOURCE, USE, build_demo_drop
from mm_assets.drops.create import push_drop
from mm_assets.evaluation.config import CorruptionConfig, EvaluationConfig
from mm_assets.launchers.environment import stage_environment
from mm_assets.materialize import Workspace, partitions_of
from mm_assets.operations.instance import instance_for
from mm_assets.operations.run_release import RunRequest, run_release
from mm_assets.pipeline import ASSETS
from mm_assets.settings import Settings, read_settings
from mm_assets.store.client import make_client
from mm_assets.store.manifest import Partition, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.refs import Ref, require_ref
from mm_assets_tests.lenient_rules import write_lenient_rules

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
BASE = "r0"
NUM_SHARDS = 2
MANY_SHARDS = 8
RELEASE_LEVEL = [asset.name for asset in ASSETS.values() if not asset.is_sharded]
SHARD_LEVEL = [asset.name for asset in ASSETS.values() if asset.is_sharded]
#: A freeze of a hundred rows, on a machine that does other things too.
MAX_FREEZE_S = 60.0
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
WRITES = {"PUT", "POST", "DELETE"}

WIDER = replace(SMOKE, training=replace(SMOKE.training, model=replace(SMOKE.training.model, width=48)))
OTHER_EVALUATION = replace(
    SMOKE, evaluation=EvaluationConfig(corruptions=(CorruptionConfig(name="image_blur", severities=(1,)),))
)
OTHER_PLACEMENT = replace(
    SMOKE,
    placement=PlacementConfig(
        log_every=3,
        microbatch_size=7,
        experiment_class="benchmark",
        budget_usd=12.5,
        resources={"model": {"cpus": 1.0}},
    ),
)


class CountingServer:
    """An S3 server that remembers every request."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        application: Any = DomainDispatcherApplication(create_backend_app)

        def count(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
            return application(environ, start_response)

        self._server = make_server("127.0.0.1", 0, count, threaded=True)
        self.endpoint = f"http://127.0.0.1:{self._server.port}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def writes(self) -> list[tuple[str, str]]:
        return [request for request in self.requests if request[0] in WRITES]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """A store with the small drop, and the runs that were made on it."""

    settings: Settings
    store: Store
    instance: dg.DagsterInstance
    server: CountingServer

    def open(self, release: str, **request: Any) -> None:
        if "drops" in request:
            request.setdefault("num_shards", NUM_SHARDS)
        open_named_release(Workspace(self.settings, self.store), ReleaseRequest(release=release, **request))

    def run(self, release: str) -> dict[str, list[str]]:
        """Runs a release; returns the names of the assets by what happened to them, one for each partition."""
        happened: dict[str, list[str]] = {"computed": [], "cached": []}

        def on_event(asset: str, partition: Partition, state: str, seconds: float) -> None:
            assert partition.release == release
            if state in happened:
                happened[state].append(asset)

        report = run_release(
            self.instance, RunRequest(release=release, parallel=1), settings=self.settings, on_event=on_event
        )
        assert report.failed == ()
        assert (report.computed, report.cached) == (len(happened["computed"]), len(happened["cached"]))
        return happened

    def ref(self, asset: str, release: str, shard: str | None = None) -> Ref:
        return require_ref(self.store, asset, Partition(release=release, shard=shard))


@pytest.fixture(scope="module")
def server() -> Iterator[CountingServer]:
    server = CountingServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def environ(server: CountingServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Variables of this process and all that it starts: an empty store, and gates that a handful of samples passes."""
    folder = tmp_path_factory.mktemp("experiments")
    make_client(server.endpoint, {"access_key": "test", "secret_key": "test"}).create_bucket(Bucket="experiments")
    environ = KEYS | {
        "MM_STORE_URI": "s3://experiments/store",
        "MM_S3_ENDPOINT": server.endpoint,
        "MM_CONFIG_DIR": str(write_lenient_rules(folder / "config", promote_to="candidate")),
        "MM_NUM_SHARDS": str(NUM_SHARDS),
        "MM_WORLD_SIZE": "1",
        "MM_HOME": str(folder / "home"),
        "DAGSTER_HOME": str(folder / "dagster"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        yield environ


@pytest.fixture(scope="module")
def drop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_demo_drop(tmp_path_factory.mktemp("drop"), num_emoji=40)


@pytest.fixture(scope="module")
def world(server: CountingServer, environ: dict[str, str], drop: Path) -> Iterator[World]:
    """A world in which the first release was run."""
    settings = read_settings(environ)
    client = make_client(server.endpoint, {"access_key": "test", "secret_key": "test"})
    store = Store(client=client, bucket="experiments", prefix="store")
    push_drop(store, drop)
    instance = instance_for(settings)
    world = World(settings=settings, store=store, instance=instance, server=server)
    world.open(BASE, drops=((SOURCE, DROP),), use=USE, configuration="smoke")
    assert world.run(BASE) == {
        "computed": [*SHARD_LEVEL * NUM_SHARDS, *RELEASE_LEVEL[:-1]],
        "cached": [],
    }
    yield world
    instance.dispose()


Configure = Callable[[str, PipelineConfig], str]


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Adds a configuration, as a researcher does in ``configurations.py``; returns its name."""

    def configure(name: str, config: PipelineConfig) -> str:
        monkeypatch.setitem(CONFIGURATIONS, name, config)
        return name

    return configure


def test_another_model_computes_the_model_and_what_follows_it(world: World, configure: Configure) -> None:
    world.open("wider", data_of=BASE, configuration=configure("wider", WIDER))
    happened = world.run("wider")
    assert happened["computed"] == ["model", "evaluation", "promotion"]
    assert happened["cached"] == ["dataset_release", "batch_plan"]
    assert world.ref("batch_plan", "wider").content == world.ref("batch_plan", BASE).content
    assert world.ref("model", "wider").content != world.ref("model", BASE).content


def test_another_evaluation_computes_the_evaluation_and_what_follows_it(world: World, configure: Configure) -> None:
    world.open("measured", data_of=BASE, configuration=configure("measured", OTHER_EVALUATION))
    happened = world.run("measured")
    assert happened["computed"] == ["evaluation", "promotion"]
    assert happened["cached"] == ["dataset_release", "batch_plan", "model"]


def test_the_same_drop_under_another_name_computes_nothing_but_the_registration(world: World) -> None:
    world.open("renamed", drops=((SOURCE, DROP),), use=USE, configuration="smoke")
    happened = world.run("renamed")
    assert happened["computed"] == []
    assert happened["cached"] == [*SHARD_LEVEL * NUM_SHARDS, *RELEASE_LEVEL[:-1]]
    for asset in RELEASE_LEVEL[:-1]:
        assert world.ref(asset, "renamed").content == world.ref(asset, BASE).content, asset
    # The provenance is its own: it names the shards of this release.
    inputs = _inputs(world, world.ref("dataset_release", "renamed"))
    assert {entry.partition["release"] for entry in inputs if entry.asset in SHARD_LEVEL} == {"renamed"}


def test_how_a_run_is_looked_after_changes_nothing(world: World, configure: Configure) -> None:
    world.open("watched", drops=((SOURCE, DROP),), use=USE, configuration=configure("watched", OTHER_PLACEMENT))
    happened = world.run("watched")
    assert happened["computed"] == []
    shard = Partition(release="watched", shard="0000")
    # The placement reaches the computation, which refuses to commit other bytes for the same action.
    forced = Workspace(world.settings, world.store).run(
        "embeddings", shard, environment=stage_environment(), force=True
    )
    assert not forced.cached
    assert forced.manifest.content == world.ref("embeddings", BASE, "0000").content


def test_another_policy_freezes_again_and_computes_no_shard(world: World) -> None:
    world.open("clean", data_of=BASE, policy="clean")
    happened = world.run("clean")
    assert happened["computed"][0] == "dataset_release"
    assert set(happened["computed"] + happened["cached"]) == set(RELEASE_LEVEL[:-1])
    ref = world.ref("dataset_release", "clean")
    assert not ref.cached
    assert ref.wall_s < MAX_FREEZE_S
    assert ref.content != world.ref("dataset_release", BASE).content
    frozen = {entry.partition["release"] for entry in _inputs(world, ref) if entry.asset in SHARD_LEVEL}
    assert frozen == {BASE}


def test_a_current_release_is_run_again_without_a_write(
    world: World, environ: dict[str, str], record_property: Callable[[str, object], None]
) -> None:
    settings = replace(world.settings, num_shards=MANY_SHARDS)
    many = replace(world, settings=settings)
    many.open("many", drops=((SOURCE, DROP),), use=USE, configuration="smoke", num_shards=MANY_SHARDS)
    workspace = Workspace(settings, world.store)
    # Made outside of Dagster, by one process: the first run then finds all of it and shows it.
    for name in SHARD_LEVEL:
        for partition in partitions_of(workspace.spec("many"), ASSETS[name]):
            environment = stage_environment() if ASSETS[name].is_launched else {}
            workspace.run(name, partition, environment=environment)
            assert workspace.check(name, partition).passed
    num_partitions = len(SHARD_LEVEL) * MANY_SHARDS + len(RELEASE_LEVEL)
    happened = many.run("many")
    assert happened["cached"] == SHARD_LEVEL * MANY_SHARDS
    world.server.requests.clear()
    before = _cpu_s()
    answer = subprocess.run(
        [sys.executable, "-m", "mm_assets.cli", "run", "--release", "many", "--json"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **environ, "MM_NUM_SHARDS": str(MANY_SHARDS)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    cpu_s = _cpu_s() - before
    report = json.loads(answer.stdout.splitlines()[-1])
    assert (report["computed"], report["cached"], report["failed"]) == (0, num_partitions, [])
    assert world.server.requests
    assert world.server.writes() == []
    record_property("cpu_s", round(cpu_s, 2))
    record_property("num_requests", len(world.server.requests))


def _inputs(world: World, ref: Ref) -> list[Any]:
    return read_manifest(world.store, ref.manifest).inputs


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
