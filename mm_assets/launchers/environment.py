"""The identity of the environment a launched stage runs in, and what is remembered about one that is elsewhere.

``stage_environment`` enters fingerprints, so it holds only what can change a stage's bytes: no thread count, no host
name, no clock. It imports no torch, so the process that launches a stage can compute it too. Where the stage runs in a
pod, the launching process cannot know it: the pod records it under its placement, and the next launch looks it up.
"""

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

from mm_assets.identity.canonical import Json, canonical_json, digest_hex, digest_json
from mm_assets.settings import read_settings
from mm_assets.store.objects import Store

#: Libraries whose kernels and encoders write the bytes of a launched stage.
LIBRARIES = ("numpy", "pyarrow", "safetensors", "torch")
#: What torch asks of an x86 processor before it uses a kernel family (ATen/native/DispatchStub.cpp).
CAPABILITY_FLAGS = {"AVX512": {"avx512vl", "avx512bw", "avx512dq", "fma"}, "AVX2": {"avx2", "fma"}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """What decides a pod's environment before it starts: its image and the nodes it may land on."""

    image: str
    node_selector: Mapping[str, str] = field(default_factory=dict[str, str])
    accelerators: int = 0

    @property
    def key(self) -> str:
        """``environments/<digest hex of the placement>.json``."""
        return f"environments/{digest_hex(digest_json(self))}.json"

    def encode(self) -> str:
        """Canonical JSON, as the worker gets it on its command line."""
        return canonical_json(self).decode()

    @classmethod
    def decode(cls, text: str) -> "Placement":
        """The inverse of ``encode``."""
        return cls(**json.loads(text))


def stage_environment(accelerators: int | None = None) -> dict[str, Json]:
    """The environment identity of a stage that runs on this machine, with this interpreter.

    Args:
        accelerators: How many it is given, ``MM_ACCELERATORS`` where None; it computes on the processor without any,
            whatever the machine has.
    """
    settings = read_settings()
    given = settings.accelerators if accelerators is None else accelerators
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "machine": platform.machine(),
        "cpu_vendor": cpu_vendor(Path("/proc/cpuinfo")),
        "cpu_capability": cpu_capability(Path("/proc/cpuinfo"), settings.cpu_capability),
        "accelerator": accelerator(Path("/dev"), Path("/proc/driver/nvidia"), given=given),
        "libraries": {name: _installed_version(name) for name in LIBRARIES},
    }


def cpu_vendor(cpuinfo: Path) -> str:
    """Who made this processor, as it says itself: MKL has other kernels for Intel's than for the rest.

    Args:
        cpuinfo: ``/proc/cpuinfo``, or a copy of it.
    """
    facts = _first_processor(cpuinfo)
    return facts.get("vendor_id") or facts.get("CPU implementer") or "unknown"


def cpu_capability(cpuinfo: Path, override: str | None = None) -> str:
    """The kernel family torch picks on this processor: AVX512, AVX2 or DEFAULT.

    Args:
        cpuinfo: ``/proc/cpuinfo``, or a copy of it.
        override: Value of ``ATEN_CPU_CAPABILITY``, which torch obeys before it looks at the processor.
    """
    if override and override.upper() in {*CAPABILITY_FLAGS, "DEFAULT"}:
        return override.upper()
    flags = set(_first_processor(cpuinfo).get("flags", "").split())
    return next((family for family, needed in CAPABILITY_FLAGS.items() if needed <= flags), "DEFAULT")


def accelerator(devices: Path, driver: Path, *, given: int) -> str:
    """Models of the NVIDIA devices this process can open, joined by ``+``, and their driver; ``none`` without one.

    Args:
        devices: ``/dev``, or a copy of it.
        driver: ``/proc/driver/nvidia``, or a copy of it.
        given: How many of them the stage was given; one that was given none computes on the processor.
    """
    if not given or not list(devices.glob("nvidia[0-9]*")):
        return "none"
    models: set[str] = set()
    for information in driver.glob("gpus/*/information"):
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "Model":
                models.add(value.strip())
    return f"{'+'.join(sorted(models)) or 'nvidia'}, driver {_driver_version(driver / 'version')}"


def _driver_version(path: Path) -> str:
    """Such as 570.86.15: the first number with dots of what the kernel module says about itself."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    found = re.search(r"\b\d+(\.\d+)+\b", text)
    return found[0] if found else "unknown"


def record_environment(store: Store, placement: Placement, environment: Mapping[str, Json]) -> None:
    """Remembers what a pod of this placement found itself in; the latest pod counts."""
    data = canonical_json({"schema": "mm.environment/1", "placement": asdict(placement), "environment": environment})
    while not store.create_key(placement.key, data):
        current = store.read_key(placement.key)
        if current is not None and store.replace_key(placement.key, data, current.etag):
            return


def known_environment(store: Store, placement: Placement) -> dict[str, Json] | None:
    """The environment of pods of this placement, or None if none ran yet."""
    current = store.read_key(placement.key)
    return None if current is None else dict(json.loads(current.data)["environment"])


def _first_processor(cpuinfo: Path) -> dict[str, str]:
    """The facts of the first processor that is listed."""
    if not cpuinfo.is_file():
        return {}
    facts: dict[str, str] = {}
    for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in facts:
            break
        facts[name.strip()] = value.strip()
    return facts


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
