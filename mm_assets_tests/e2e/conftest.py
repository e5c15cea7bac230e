"""The demo, run once as a user would, and shared by the tests that look at what came out of it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mm_assets.settings import read_settings
from mm_assets.store import embedded
from mm_assets.store.objects import Store, open_store

TIMEOUT_S = 1500
#: The package that these tests belong to, wherever another one is installed.
ROOT = Path(__file__).parents[2]

Answer = subprocess.CompletedProcess[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Workplace:
    """A folder with an embedded store of its own, in which ``mm`` is called as from a shell."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of this process's own settings."""
        return {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.defpath]),
            "HOME": str(self.folder),
            "MM_HOME": str(self.folder / ".mm"),
            "PYTHONPATH": str(ROOT),
        }

    def run(self, *command: str) -> Answer:
        """Runs a program; ``mm`` is on the path."""
        program = [sys.executable, "-m", "mm_assets.cli", *command[1:]] if command[0] == "mm" else list(command)
        return subprocess.run(
            program,
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )

    def result(self, *command: str) -> dict[str, Any]:
        """Runs a command that must succeed with ``--json`` and returns its object."""
        answer = self.run(*command, "--json")
        assert answer.returncode == 0, f"{command}: {answer.stderr}\n{answer.stdout}"
        return json.loads(answer.stdout.splitlines()[-1])

    def store(self) -> Store:
        """The workplace's store."""
        return open_store(read_settings({"MM_HOME": str(self.folder / ".mm")}))


@pytest.fixture(scope="session")
def make_workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Workplace]]:
    """Makes empty workplaces and stops their stores in the end."""
    made: list[Workplace] = []

    def make(name: str) -> Workplace:
        made.append(Workplace(folder=tmp_path_factory.mktemp(name)))
        return made[-1]

    yield make
    for workplace in made:
        embedded.stop(workplace.folder / ".mm")


@pytest.fixture(scope="session")
def demo_place(make_workplace: Callable[[str], Workplace]) -> Workplace:
    """Where the demo runs."""
    return make_workplace("demo")


@pytest.fixture(scope="session")
def demo(demo_place: Workplace) -> dict[str, Any]:
    """The result of the demo's first run."""
    return demo_place.result("mm", "demo")
