"""Each image imports only what its lock installs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mm_assets.pipeline import ASSETS

ROOT = Path(__file__).parents[2]
#: Hides every installed package but the named ones, then imports the named modules and all that launched stages run.
PROBE = """
import sys
from importlib import import_module, metadata

modules, allowed = sys.argv[1].split(","), set(sys.argv[2:])
for name, owners in metadata.packages_distributions().items():
    if not {owner.lower().replace("_", "-") for owner in owners} & allowed:
        sys.modules[name] = None
for module in modules:
    import_module(module)
"""
CODE_SERVER_MODULES = [
    "mm_assets.definitions",
    "mm_assets.launchers.kubernetes.client",
    "mm_assets.defs.janitor",
    "mm_assets.cli",
]


def _locked(path: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE))


def _probe(modules: list[str], allowed: set[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROBE, ",".join(modules), "mm-assets", *sorted(allowed)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.integration
def test_a_stage_imports_nothing_that_its_image_lacks() -> None:
    modules = ["mm_assets.entrypoint"]
    modules += [asset.compute.partition(":")[0] for asset in ASSETS.values() if asset.is_launched]
    allowed = _locked("locks/stage.txt") | _locked("docker/torch_cpu.txt")
    probe = _probe(modules, allowed)
    assert probe.returncode == 0, probe.stderr
    assert _probe(modules, allowed - {"torch"}).returncode != 0


@pytest.mark.integration
def test_the_code_server_imports_nothing_that_its_image_lacks() -> None:
    probe = _probe(CODE_SERVER_MODULES, _locked("locks/code_server.txt"))
    assert probe.returncode == 0, probe.stderr
