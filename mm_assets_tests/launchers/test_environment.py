import json
from pathlib import Path

import pytest

from mm_assets.identity.canonical import canonical_json
from mm_assets.launchers.environment import (
    Placement,
    accelerator,
    cpu_capability,
    cpu_vendor,
    known_environment,
    record_environment,
    stage_environment,
)
from mm_assets.store.objects import Store

AVX2 = "fpu sse4_2 fma avx avx2"
AVX512 = AVX2 + " avx512f avx512dq avx512bw avx512vl"
PLACEMENT = Placement(image="r/stage@sha256:" + "0" * 64, node_selector={"pool": "gpu"}, accelerators=1)


def _cpuinfo(folder: Path, flags: str) -> Path:
    path = folder / "cpuinfo"
    path.write_text(f"processor\t: 0\nmodel name\t: x\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    return path


def test_capability_is_the_one_torch_reports_on_this_machine() -> None:
    torch = pytest.importorskip("torch")
    assert stage_environment()["cpu_capability"] == torch.backends.cpu.get_cpu_capability()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [(AVX512, "AVX512"), (AVX2, "AVX2"), (AVX512.replace("avx512vl", ""), "AVX2"), ("fpu avx2", "DEFAULT")],
)
def test_capability_needs_all_flags_of_its_family(tmp_path: Path, flags: str, expected: str) -> None:
    assert cpu_capability(_cpuinfo(tmp_path, flags)) == expected


def test_override_wins_over_the_processor_and_nonsense_does_not(tmp_path: Path) -> None:
    path = _cpuinfo(tmp_path, AVX512)
    assert cpu_capability(path, "avx2") == "AVX2"
    assert cpu_capability(path, "default") == "DEFAULT"
    assert cpu_capability(path, "sse") == "AVX512"


def test_a_processor_without_flags_has_the_default_capability(tmp_path: Path) -> None:
    assert cpu_capability(tmp_path / "missing") == "DEFAULT"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nvendor_id\t: GenuineIntel\n\nprocessor\t: 1\nvendor_id\t: Other\n", "GenuineIntel"),
        ("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n", "0x41"),
        ("processor\t: 0\n", "unknown"),
    ],
)
def test_vendor_is_that_of_the_first_processor(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_vendor(tmp_path / "cpuinfo") == expected
    assert cpu_vendor(tmp_path / "missing") == "unknown"


def test_accelerator_is_named_by_model_and_only_if_its_device_can_be_opened(tmp_path: Path) -> None:
    devices, drivers = tmp_path / "dev", tmp_path / "nvidia"
    (drivers / "gpus" / "0000:01:00.0").mkdir(parents=True)
    (drivers / "gpus" / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA H200\nIRQ:   \t\t 5\n")
    devices.mkdir()
    assert accelerator(devices, drivers, given=1) == "none"
    (devices / "nvidia0").touch()
    assert accelerator(devices, drivers, given=1) == "NVIDIA H200, driver unknown"
    says = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release\nGCC version:  12.3.0\n"
    (drivers / "version").write_text(says)
    assert accelerator(devices, drivers, given=1) == "NVIDIA H200, driver 570.86.15"
    assert accelerator(devices, drivers, given=0) == "none", "it computes on the processor"
    assert accelerator(devices, tmp_path / "hidden", given=1) == "nvidia, driver unknown"


def test_environment_is_the_same_in_a_process_without_torch_and_names_no_host() -> None:
    environment = stage_environment()
    text = canonical_json(environment).decode()
    assert json.loads(text) == environment
    assert set(environment) == {"python", "machine", "cpu_vendor", "cpu_capability", "accelerator", "libraries"}
    assert Path("/etc/hostname").read_text().strip() not in text


def test_recorded_environment_is_found_by_its_placement_alone(store: Store) -> None:
    assert known_environment(store, PLACEMENT) is None
    record_environment(store, PLACEMENT, {"cpu_capability": "AVX2"})
    record_environment(store, PLACEMENT, {"cpu_capability": "AVX512"})
    assert known_environment(store, Placement.decode(PLACEMENT.encode())) == {"cpu_capability": "AVX512"}
    other = Placement(image=PLACEMENT.image, node_selector={"pool": "cpu"})
    assert known_environment(store, other) is None
