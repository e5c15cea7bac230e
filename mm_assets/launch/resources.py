"""What a launched stage asks of the machine it runs on. Placement, never identity: nothing here is fingerprinted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated_dataclass

from mm_assets.errors import SpecError

GIB = 1 << 30
#: Section of a release's recipe that may carry ``resources`` for the asset.
SECTIONS = {"embeddings": "encoder", "model": "training", "evaluation": "evaluation"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Toleration:
    """A Kubernetes toleration of one taint."""

    key: str
    operator: str = "Exists"
    value: str | None = None
    effect: str | None = None


@validated_dataclass(frozen=True, kw_only=True, slots=True, config=ConfigDict(extra="forbid"))
class Resources:
    """One stage's request: processors, memory, accelerators, nodes and deadlines.

    ``launch_deadline_s`` is how long the pod may take until its container runs, ``active_deadline_s`` how long it may
    run. ``accelerator_type`` is the product name that the nodes carry as a label.
    """

    cpus: float = 2.0
    memory_bytes: int = 4 * GIB
    accelerators: int = 0
    accelerator_type: str | None = None
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    launch_deadline_s: float = 900.0
    active_deadline_s: int = 3600


DEFAULTS = {
    "embeddings": Resources(),
    "model": Resources(active_deadline_s=24 * 3600),
    "evaluation": Resources(active_deadline_s=4 * 3600),
}


def resources_for(asset: str, recipe: Mapping[str, Any]) -> Resources:
    """The resources of ``asset``: its defaults, overridden by ``resources`` in its section of the recipe.

    Args:
        asset: Name of a launched asset.
        recipe: ``ReleaseSpec.recipe``.

    Raises:
        SpecError: the section asks for something that does not exist or has the wrong type.
    """
    default = DEFAULTS.get(asset, Resources())
    section = recipe.get(SECTIONS.get(asset, asset))
    wanted = section.get("resources") if isinstance(section, Mapping) else None
    if not wanted:
        return default
    fields = TypeAdapter(Resources).dump_python(default)
    try:
        return TypeAdapter(Resources).validate_python(fields | dict(wanted))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise SpecError(
            f"resources of {asset}: {place} is unusable: {first['msg']}, got {first['input']!r}."
        ) from error
