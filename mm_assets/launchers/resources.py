"""What a launched stage asks of the machine it runs on. Placement, never identity: nothing here is fingerprinted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated_dataclass

from mm_assets.errors import SpecError
from mm_assets.settings import Settings

GIB = 1 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Toleration:
    """A Kubernetes toleration of one taint."""

    key: str
    operator: str = "Exists"
    value: str | None = None
    effect: str | None = None


@validated_dataclass(frozen=True, kw_only=True, slots=True, config=ConfigDict(extra="forbid"))
class Resources:
    """One stage's request: processors, memory, disk, accelerators, nodes and deadlines.

    ``scratch_bytes`` is what it may write to its work folder: the objects it fetches, and those it makes.
    ``launch_deadline_s`` is how long the pod may take until its container runs, ``max_runtime_s`` how long it may run.
    ``accelerator_kind`` is the product name that the nodes carry as a label.
    """

    cpus: float = 2.0
    memory_bytes: int = 4 * GIB
    scratch_bytes: int = 10 * GIB
    accelerators: int = 0
    accelerator_kind: str | None = None
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    launch_deadline_s: float = 900.0
    max_runtime_s: int = 3600


def resources_for(asset: str, configuration: Mapping[str, Any], settings: Settings) -> Resources:
    """The resources of ``asset``: the deployment's ``resources.yaml``, overridden by the release's configuration.

    Args:
        asset: Name of a launched asset.
        configuration: ``ReleaseSpec.configuration``; its ``placement.resources`` may name the asset.
        settings: Where ``resources.yaml`` is.

    Raises:
        SpecError: the file or the section asks for something that does not exist or has the wrong type.
    """
    path = settings.config_file("resources.yaml")
    placement = configuration.get("placement")
    wanted = placement.get("resources", {}).get(asset) if isinstance(placement, Mapping) else None
    fields = _fields(path.name, _read_mapping(path).get(asset)) | _fields(f"placement.resources.{asset}", wanted)
    try:
        return TypeAdapter(Resources).validate_python(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise SpecError(
            f"resources of {asset}: {place} is unusable: {first['msg']}, got {first['input']!r}."
        ) from error


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        return _fields(path.name, yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise SpecError(f"{path.name}: is not valid YAML: {' '.join(str(error).split())}.") from error


def _fields(place: str, value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SpecError(f"{place}: resources are unusable: expected a mapping, got {value!r}.")
    return dict(value)
