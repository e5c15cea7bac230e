"""What an environment tells math libraries reaches no process that computes."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import soundfile

from mm_assets.drops.create import create_drop
from mm_assets.errors import SettingsError
from mm_assets.launchers.environment import stage_environment
from mm_assets.materialize import Workspace
from mm_assets.pipeline import ASSETS
from mm_assets.settings import MATH_MODES, clear_math_modes, read_settings, without_math_modes
from mm_assets.store.embedded import Server
from mm_assets.store.job import Job
from mm_assets.store.manifest import Partition, read_manifest
from mm_assets.store.objects import open_store
from mm_assets.store.refs import require_ref
from mm_assets.training.prepare import prepare_job

MODES = {
    "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41",
    "SOXR_USE_SIMD": "0", "SOXR_USE_SIMD32": "0", "SOXR_USE_SIMD64": "0",
}  # fmt: skip
REMOVED = (
    *MODES, "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "DNNL_MAX_CPU_ISA", "ONEDNN_CPU_ISA_HINTS",
    "DNNL_CPU_ISA_HINTS", "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "FBGEMM_ENABLE_INSTRUCTIONS",
    "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "SOXR_MIN_DFT_SIZE", "SOXR_COEF_INTERP", "OMP_THREAD_LIMIT", "ARROW_USER_SIMD_LEVEL",
)  # fmt: skip
KEPT = ("PATH", "OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY", "AWS_ACCESS_KEY_ID", "MM_HOME", "CUDA_VISIBLE_DEVICES")
RELEASE = Partition(release="r1")
NUM_SAMPLES, SOURCE_RATE = 24, 44_100
RUN_TIMEOUT_S = 500


def test_modes_are_removed_and_the_rest_is_kept() -> None:
    assert set(without_math_modes(dict.fromkeys((*REMOVED, *KEPT), "1"))) == {*KEPT, "CUBLAS_WORKSPACE_CONFIG"}
    assert without_math_modes({"CUBLAS_WORKSPACE_CONFIG": ":0:0"}) == {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


def test_every_mode_says_what_it_changes() -> None:
    assert all(mode.reason and mode.names for mode in MATH_MODES)
    names = [name for mode in MATH_MODES for name in mode.names]
    assert len(set(names)) == len(names)


def test_a_mode_that_a_loaded_library_may_have_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setenv("SOXR_USE_SIMD", "0")
    clear_math_modes()
    assert "SOXR_USE_SIMD" not in os.environ
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    with pytest.raises(SettingsError, match="OPENBLAS_CORETYPE: changes how numpy computes.*got 'Haswell'"):
        clear_math_modes()


@pytest.mark.integration
@pytest.mark.parametrize("module", ["mm_assets.cli", "mm_assets.settings", "dagster"])
def test_what_is_loaded_before_the_modes_are_removed_loads_no_reader(module: str) -> None:
    code = f"import sys, {module}; print([name for name in sys.argv[1:] if name in sys.modules])"
    readers = sorted({mode.reader for mode in MATH_MODES} - {""})
    done = subprocess.run([sys.executable, "-c", code, *readers], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.integration
def test_definitions_remove_modes_before_they_load_a_library() -> None:
    code = "import os, mm_assets.definitions; print(sorted(set(os.environ) & set(os.environ['NAMES'].split())))"
    environment = os.environ | dict.fromkeys(REMOVED, "0") | {"NAMES": " ".join(REMOVED)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@dataclass(frozen=True, kw_only=True)
class World:
    """A store of its own and the environment of ``mm`` in it."""

    environ: dict[str, str]

    def mm(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "mm_assets.cli", *arguments]
        done = subprocess.run(
            command, env=self.environ, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]

    def workspace(self, monkeypatch: pytest.MonkeyPatch) -> Workspace:
        for name, value in self.environ.items():
            if name.startswith(("MM_", "AWS_")):
                monkeypatch.setenv(name, value)
        settings = read_settings()
        return Workspace(settings, open_store(settings))


def _drop(folder: Path) -> Path:
    """Texts, and noise at a rate that has to be resampled."""
    folder.mkdir()
    rows: list[str] = []
    for number in range(NUM_SAMPLES):
        rng = np.random.default_rng(number)
        # Loud and quiet in turn as in no other clip: steady noise is near to steady noise.
        loudness = np.repeat(10 ** rng.uniform(-3, 0, 10), SOURCE_RATE // 20)
        soundfile.write(folder / f"{number}.wav", rng.normal(0, 0.1, len(loudness)) * loudness, SOURCE_RATE)
        label = ("red", "blue")[number % 2]
        row = {"id": f"s{number}", "text": f"{label} number {number}", "audio": f"{number}.wav", "label": label}
        rows.append(json.dumps(row))
    (folder / "index.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    create_drop(folder, "noise", "d1")
    return folder


def _world(server: Server, folder: Path, drop: Path, extra: dict[str, str]) -> World:
    environ = without_math_modes(os.environ) | server.environment() | {
        "MM_STORE_URI": f"s3://{server.bucket}/{uuid4().hex}", "MM_HOME": str(folder),
        "DAGSTER_HOME": str(folder / "dagster"), "MM_NUM_SHARDS": "1", "MM_WORLD_SIZE": "1",
    }  # fmt: skip
    world = World(environ=environ | extra)
    world.mm("drop", "push", str(drop))
    world.mm("release", "open", "--release", "r1", "--drop", "noise/d1", "--config", "smoke")
    world.mm("run", "--release", "r1")
    return world


def _contents(workspace: Workspace) -> dict[str, tuple[str, str]]:
    """Fingerprint and content of every partition."""
    found: dict[str, tuple[str, str]] = {}
    for name, asset in ASSETS.items():
        partition = Partition(release="r1", shard="0000") if asset.is_sharded else RELEASE
        ref = require_ref(workspace.store, name, partition)
        found[name] = ref.fingerprint, ref.content
    return found


def _trained(workspace: Workspace, folder: Path, modes: dict[str, str]) -> str:
    """Digest of the last weights of the release's model, trained by the rank's own program in this environment."""
    folder.mkdir()
    (folder / "checkpoints").mkdir()
    action = workspace.resolve("model", RELEASE, stage_environment())
    job = prepare_job(Job(store=workspace.store, action=action, workdir=folder)) | {"log_every": 1000}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    command = [sys.executable, "-m", "mm_assets.training.worker", str(folder / "job.json")]
    # A rank ends when its stdin is closed, so it stays open until then.
    with subprocess.Popen(command, env=without_math_modes(os.environ) | modes, stdin=subprocess.PIPE) as process:
        assert process.wait(RUN_TIMEOUT_S) == 0
    records = [path for path in (folder / "checkpoints").glob("*.json") if path.stem.isdigit()]
    return json.loads(max(records).read_bytes())["weights"]


@pytest.fixture(scope="module")
def drop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _drop(tmp_path_factory.mktemp("modes") / "drop")


@pytest.fixture(scope="module")
def clean(seaweed_server: Server, tmp_path_factory: pytest.TempPathFactory, drop: Path) -> World:
    """A release that was run in an environment without modes."""
    return _world(seaweed_server, tmp_path_factory.mktemp("clean"), drop, {})


@pytest.mark.e2e
@pytest.mark.slow
def test_modes_in_the_environment_of_a_run_change_no_bit(
    clean: World, seaweed_server: Server, tmp_path: Path, drop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = _world(seaweed_server, tmp_path, drop, MODES)
    contents = _contents(told.workspace(monkeypatch))
    assert contents == _contents(clean.workspace(monkeypatch))


@pytest.mark.e2e
def test_a_rank_would_have_other_bits_without_the_removal(
    clean: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = clean.workspace(monkeypatch)
    model = read_manifest(workspace.store, require_ref(workspace.store, "model", RELEASE).manifest)
    weights = model.output("weights.safetensors").digest
    assert _trained(workspace, tmp_path / "clean", {}) == weights
    if _trained(workspace, tmp_path / "told", MODES) == weights:
        pytest.skip("MKL_CBWR and ONEDNN_MAX_CPU_ISA change no bit of training on this processor")


RESAMPLED = """
import hashlib, numpy, soxr
samples = numpy.random.default_rng(0).normal(0, 0.1, 44_100).astype("f4")
print(hashlib.sha256(soxr.resample(samples, 44_100, 16_000, quality="HQ").tobytes()).hexdigest())
"""


@pytest.mark.integration
def test_resampling_would_have_other_bits_without_the_removal() -> None:
    def resampled(environment: dict[str, str]) -> str:
        command = [sys.executable, "-c", RESAMPLED]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    clean = without_math_modes(os.environ)
    assert resampled(without_math_modes(clean | MODES)) == resampled(clean)
    if resampled(clean | MODES) == resampled(clean):
        pytest.skip("SOXR_USE_SIMD* change no bit on this processor")
