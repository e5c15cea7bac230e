import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.stem)
def dockerfile(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_both_images_are_here() -> None:
    assert [path.name for path in DOCKERFILES] == ["code_server.Dockerfile", "stage.Dockerfile"]


def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    beside = Path(sys.executable).with_name("hadolint")
    program = str(beside) if beside.is_file() else shutil.which("hadolint")
    assert program, "hadolint is not installed"
    checked = subprocess.run([program, str(dockerfile)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_image_is_multi_stage_from_a_base_named_by_digest_and_ends_as_nobody(dockerfile: Path) -> None:
    text = dockerfile.read_text(encoding="utf-8")
    assert re.search(r"^ARG PYTHON_IMAGE=\S+@sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${PYTHON_IMAGE}"] * 2
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["10001:10001"]


def test_every_installation_is_locked_by_hash(dockerfile: Path) -> None:
    for line in dockerfile.read_text(encoding="utf-8").splitlines():
        if "pip install" in line:
            assert "--require-hashes" in line and "--no-deps" in line, line


def _locked(path: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE))


def test_code_server_has_no_torch_and_stage_has_no_dagster() -> None:
    assert "torch" not in _locked("locks/code_server.txt")
    assert "dagster" in _locked("locks/code_server.txt")
    stage = _locked("locks/stage.txt")
    assert {name for name in stage if name.startswith("dagster")} == {"dagster-pipes"}
    for build in ("docker/torch_cpu.txt", "docker/torch_cuda.txt"):
        assert "torch" in _locked(build)


def test_torch_builds_pin_the_same_versions_as_the_stage_lock() -> None:
    pattern = re.compile(r"^([a-z0-9._-]+)==(\S+)", re.MULTILINE)
    stage = dict(pattern.findall((ROOT / "locks/stage.txt").read_text(encoding="utf-8")))
    cuda = dict(pattern.findall((ROOT / "docker/torch_cuda.txt").read_text(encoding="utf-8")))
    cpu = dict(pattern.findall((ROOT / "docker/torch_cpu.txt").read_text(encoding="utf-8")))
    assert {name: cuda[name] for name in stage.keys() & cuda.keys()} == {
        name: stage[name] for name in stage.keys() & cuda.keys()
    }
    assert cuda["torch"] == cpu["torch"].removesuffix("+cpu")
