import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Imports everything a stage pod may run, with Dagster blocked, and prints where it came from.
PROBE = """
import sys
from importlib import import_module, metadata
for name in ("dagster", "dagster_aws", "dagster_k8s", "dagster_postgres", "great_expectations"):
    sys.modules[name] = None
import_module("mm_assets.entrypoint")
from mm_assets.pipeline import ASSETS
for asset in ASSETS.values():
    if asset.is_launched:
        import_module(asset.compute.partition(":")[0])
owners = metadata.packages_distributions()
print(*sorted({owner.lower().replace("_", "-") for name in list(sys.modules) for owner in owners.get(name, [])}))
"""


def _locked(path: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.integration
def test_a_stage_imports_nothing_that_its_image_lacks() -> None:
    probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=False)
    assert probe.returncode == 0, probe.stderr
    allowed = _locked("locks/stage.txt") | _locked("docker/torch_cpu.txt") | {"mm-assets", "pip"}
    assert set(probe.stdout.split()) - allowed == set()
