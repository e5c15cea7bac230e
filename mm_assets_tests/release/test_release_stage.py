"""The freeze refuses shards that are missing, unchecked, failed or stale, through the workspace that runs it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mm_assets.checks.validations import Finding, record_validation
from mm_assets.configurations import ReleaseRequest, open_named_release
from mm_assets.errors import CheckError
from mm_assets.materialize import Workspace
from mm_assets.release.shards import SHARD_ASSETS
from mm_assets.settings import Settings
from mm_assets.store.commit import Attempt, StageResult
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import Store
from mm_assets.store.refs import require_ref
from mm_assets_tests.store.committing import delete

RELEASE = Partition(release="r1")
GOOD = Finding(rule="rule", passed=True, detail="all is well")
BAD = Finding(rule="rule", passed=False, detail="too many dead letters: 9 of 10.")


@pytest.fixture
def workspace(store: Store, settings: Settings, push_samples: Callable[..., Path]) -> Workspace:
    """An open release of five shards, all of which are made and count as checked."""
    push_samples(store, "shapes", "d1", num_samples=5)
    found = Workspace(replace(settings, num_shards=5), store)
    open_named_release(
        found, ReleaseRequest(release="r1", drops=(("shapes", "d1"),), configuration="smoke", num_shards=5)
    )
    for number in range(5):
        for asset in SHARD_ASSETS:
            found.run(asset, shard(number), environment={})
            accept(found, asset, number)
    return found


def shard(number: int) -> Partition:
    return Partition(release="r1", shard=f"{number:04d}")


def accept(workspace: Workspace, asset: str, number: int, finding: Finding = GOOD) -> None:
    """Puts an outcome about what the partition is now on record."""
    ref = require_ref(workspace.store, asset, shard(number))
    record_validation(workspace.store, workspace.subject(ref), [finding])


def test_every_shard_that_is_not_ready_is_named_at_once_and_repaired_shards_open_the_gate(
    workspace: Workspace,
) -> None:
    assert len(workspace.resolve("dataset_release", RELEASE, {}).inputs) == 5 * 3 + 2
    for asset in SHARD_ASSETS:
        delete(workspace.store, f"refs/{asset}/r1/0001.json")
    accept(workspace, "features", 2, BAD)
    # Shard 3's snapshot becomes something else, shard 4's embeddings become something that was not checked.
    for asset, number in (("snapshot", 3), ("embeddings", 4)):
        action = workspace.resolve(asset, shard(number), {})
        known = require_ref(workspace.store, asset, shard(number))
        other = require_ref(workspace.store, asset, shard(0))
        assert other.content != known.content
        result = StageResult(files=(), stats={}, stored=tuple(other.outputs))
        Attempt(workspace.store, action, shard(number)).commit_result(result, is_remembered=False)
    accept(workspace, "snapshot", 3)
    with pytest.raises(CheckError) as caught:
        workspace.run("dataset_release", RELEASE, environment={})
    message = str(caught.value)
    for named in (
        "snapshot 0001 is missing", "features 0001 is missing", "embeddings 0001 is missing",
        "features 0002 failed its check: too many dead letters: 9 of 10",
        "features 0003 is stale: it was made from other data than its inputs hold now",
        "embeddings 0004 was not checked under the rules in force",
    ):  # fmt: skip
        assert named in message
    assert message.startswith("dataset_release r1: ")
    assert " 0000 " not in message
    assert "\n" not in message
    for number in range(1, 5):
        for asset in SHARD_ASSETS:
            workspace.run(asset, shard(number), environment={})
            accept(workspace, asset, number)
    assert len(workspace.resolve("dataset_release", RELEASE, {}).inputs) == 5 * 3 + 2
