"""One drop and one spec have one result: on an empty store, in any shard order, and after kill -9 in any stage."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest

from mm_assets.configurations import ReleaseRequest, open_named_release
from mm_assets.demo.data import DROP, SOURCE, USE, build_demo_drop
from mm_assets.drops.create import push_drop
from mm_assets.lineage.verify import verify_store
from mm_assets.materialize import Workspace, partitions_of
from mm_assets.operations.instance import instance_for
from mm_assets.pipeline import ASSETS
from mm_assets.releases.spec import read_spec
from mm_assets.settings import Settings, read_settings
from mm_assets.store.embedded import Server
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import Store, open_store
from mm_assets.store.refs import read_ref, require_ref
from mm_assets_tests.lenient_rules import write_lenient_rules

pytestmark = [pytest.mark.e2e]

RELEASE = "r1"
RUN_TIMEOUT_S = 300


class World:
    """An empty store with the small drop pushed and the release opened, and the environment of ``mm`` in it."""

    def __init__(self, server: Server, folder: Path, drop: Path, *, world_size: int = 1) -> None:
        self.environ = dict(os.environ) | server.environment()
        self.environ |= {
            "MM_STORE_URI": f"s3://{server.bucket}/{uuid4().hex}",
            "MM_HOME": str(folder),
            "DAGSTER_HOME": str(folder / "dagster"),
            "MM_WORLD_SIZE": str(world_size),
            "MM_CONFIG_DIR": str(write_lenient_rules(folder / "config", promote_to="production")),
        }
        self.settings: Settings = read_settings(self.environ)
        self.store: Store = _open(self.settings, server)
        push_drop(self.store, drop)
        request = ReleaseRequest(release=RELEASE, drops=((SOURCE, DROP),), configuration="smoke", num_shards=4, use=USE)
        open_named_release(Workspace(self.settings, self.store), request)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "mm_assets.cli", *arguments, "--json"],
            env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, *arguments: str) -> dict[str, object]:
        process = self.start(*arguments)
        stdout, stderr = process.communicate(timeout=RUN_TIMEOUT_S)
        assert process.returncode == 0, stderr[-4000:]
        return json.loads(stdout.splitlines()[-1])

    def digests(self) -> dict[str, str]:
        """Manifest digest of every partition of the release."""
        spec = read_spec(self.store, RELEASE)
        return {
            f"{name}/{partition.path}": require_ref(self.store, name, partition).manifest
            for name, asset in ASSETS.items()
            for partition in partitions_of(spec, asset)
        }


def _open(settings: Settings, server: Server) -> Store:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        return open_store(settings)


@pytest.fixture(scope="module")
def drop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_demo_drop(tmp_path_factory.mktemp("drop"), num_emoji=40)


@pytest.fixture(scope="module")
def first(seaweed_server: Server, tmp_path_factory: pytest.TempPathFactory, drop: Path) -> Iterator[World]:
    """A world in which the release was run once, undisturbed."""
    world = World(seaweed_server, tmp_path_factory.mktemp("first"), drop)
    world.run("run", "--release", RELEASE)
    yield world


def test_second_run_computes_nothing_and_moves_nothing(first: World) -> None:
    before = first.digests()
    report = first.run("run", "--release", RELEASE)
    assert report["computed"] == 0
    assert report["cached"] == len(before)
    assert first.digests() == before


@pytest.mark.slow
def test_forced_run_of_every_stage_gives_the_same_digests(first: World) -> None:
    before = first.digests()
    report = first.run("run", "--release", RELEASE, "--force")
    # The registration is carried out again, not computed.
    assert report["computed"] == len(before) - 1
    assert first.digests() == before


def test_everything_reachable_is_sound(first: World) -> None:
    report = verify_store(first.store)
    assert report.is_sound
    assert report.objects > len(first.digests())


def test_empty_store_other_shard_order_and_two_processes_give_the_same_digests(
    first: World, seaweed_server: Server, tmp_path: Path, drop: Path
) -> None:
    other = World(seaweed_server, tmp_path, drop, world_size=2)
    script = (
        "from mm_assets.settings import read_settings; from mm_assets.materialize import Workspace; "
        "from mm_assets.store.manifest import Partition; "
        "from mm_assets.launchers.environment import stage_environment as environment\n"
        "workspace = Workspace(read_settings())\n"
        "for name in ('snapshot', 'features', 'embeddings'):\n"
        "    for shard in ('0003', '0001', '0002', '0000'):\n"
        f"        partition = Partition(release='{RELEASE}', shard=shard)\n"
        "        env = environment() if name == 'embeddings' else {}\n"
        "        workspace.run(name, partition, environment=env)\n"
        "        workspace.check(name, partition)\n"
    )
    subprocess.run([sys.executable, "-c", script], env=other.environ, check=True, timeout=RUN_TIMEOUT_S)
    other.run("run", "--release", RELEASE)
    assert other.digests() == first.digests()


@pytest.mark.slow
def test_kill_in_every_stage_and_run_again_gives_the_same_digests(
    first: World, seaweed_server: Server, tmp_path: Path, drop: Path
) -> None:
    world = World(seaweed_server, tmp_path, drop)
    for name, asset in ASSETS.items():
        partition = Partition(release=RELEASE, shard="0000" if asset.is_sharded else None)
        process = world.start("run", "--release", RELEASE, "--verbose")
        _wait_until_computing(world, process, name, partition)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert read_ref(world.store, name, partition).ref is None, f"{name} was committed before the kill"
    world.run("run", "--release", RELEASE)
    assert world.digests() == first.digests()
    assert verify_store(world.store).is_sound
    instance = instance_for(world.settings)
    assert not instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])), "a killed run is in progress"
    instance.dispose()


@pytest.mark.parametrize(("parallel", "untouched"), [("1", "0001"), ("2", "0003")])
def test_an_interrupt_ends_the_command_at_once_and_leaves_the_rest_alone(
    seaweed_server: Server, tmp_path: Path, drop: Path, parallel: str, untouched: str
) -> None:
    world = World(seaweed_server, tmp_path, drop)
    process = world.start("run", "--release", RELEASE, "--parallel", parallel, "--verbose")
    _wait_until_computing(world, process, "embeddings", Partition(release=RELEASE, shard="0000"))
    # SIGTERM is an interrupt too, and unlike SIGINT it is not ignored where the tests run in the background.
    os.kill(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in stderr.splitlines()[-1]
    assert read_ref(world.store, "snapshot", Partition(release=RELEASE, shard=untouched)).ref is None


def _wait_until_computing(world: World, process: "subprocess.Popen[str]", name: str, partition: Partition) -> None:
    """Follows the logs that Dagster keeps of the run, up to the line with which the stage begins."""
    logs = world.settings.dagster_home / "storage"
    before = {path: path.read_bytes() for path in logs.rglob("*.err")}
    line = f"{name} {partition.path}: computing".encode()
    while process.poll() is None:
        if any(line in path.read_bytes().removeprefix(before.get(path, b"")) for path in logs.rglob("*.err")):
            return
        time.sleep(0.02)
    raise AssertionError(f"{name} never began: the command ended with {process.returncode}")
