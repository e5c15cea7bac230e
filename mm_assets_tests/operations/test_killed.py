"""Killed at any moment, a release ends with the contents of one that was not, and at most one shard is made again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mm_assets.settings import clean_environment

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("assets", "kills"),
    [
        ("snapshot", 3),
        pytest.param(
            "snapshot,features,embeddings,dataset_release", 50, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]
        ),
    ],
)
def test_processes_that_are_killed(seaweed_env: dict[str, str], tmp_path: Path, assets: str, kills: int) -> None:
    seed = os.environ.get("MM_KILL_SEED") or "1"
    command = [sys.executable, "-m", "mm_assets_tests.operations.killed_runs", "--folder", str(tmp_path)]
    ended = subprocess.run(
        [*command, "--seed", seed, "--kills", str(kills), "--assets", assets],
        env=clean_environment() | seaweed_env | {"MM_HOME": str(tmp_path / "home")},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    clean, killed = found["clean"], found["killed"]
    assert set(clean["computed"].values()) == {1}
    assert set(clean["computed"]) == set(clean["contents"])
    assert sum(run["kills"] for run in killed) == kills
    for run in killed:
        assert run["contents"] == clean["contents"]
        assert set(run["computed"]) == set(clean["computed"])
        again = sum(run["computed"].values()) - len(clean["computed"])
        assert again <= run["kills"], run
        assert run["left"] == 0, "folders of killed processes are still there"
