"""A training spec read back: ``spec.json`` of a model, or one that a person changed."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from mm_assets.batching.config import PlanConfig
from mm_assets.errors import SpecError
from mm_assets.identity.canonical import digest_json, to_json
from mm_assets.store.manifest import DIGEST_PATTERN
from mm_assets.training.config import TrainingConfig
from mm_assets.training.inputs import training_problem


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class NamedObject(_Record):
    """An object that a training reads: its asset and name, and its digest."""

    role: str = Field(pattern=r"^[a-z_]+/[^/]+$")
    digest: str = Field(pattern=DIGEST_PATTERN)


class TrainingSpec(_Record):
    """``mm.training/2``; ``training`` holds the keys that are the training's configuration.

    ``fingerprint`` is missing in a spec that was written or changed by hand.
    """

    schema_: Literal["mm.training/2"] = Field(alias="schema")
    inputs: list[NamedObject] = Field(min_length=1)
    seed: int
    plan: dict[str, Any]
    restart: Literal["resume from the last checkpoint"]
    environment: dict[str, Any]
    training: dict[str, Any]
    fingerprint: str | None = Field(default=None, pattern=DIGEST_PATTERN)


_OTHERS = ("schema", "inputs", "seed", "plan", "restart", "environment", "fingerprint")


def parse_training_spec(data: bytes, where: str) -> TrainingSpec:
    """The spec in ``data``.

    Args:
        data: JSON.
        where: What to call it in an error.

    Raises:
        SpecError: it is no training spec, a key is unknown, missing or unusable, or its fingerprint is that of another.
    """
    try:
        body = json.loads(data)
        if not isinstance(body, dict):
            raise SpecError(f"{where}: is not a training spec: expected a JSON object.")
        own = {name: body[name] for name in _OTHERS if name in body}
        spec = TrainingSpec.model_validate(own | {"training": {k: body[k] for k in body if k not in _OTHERS}})
        config = TypeAdapter(TrainingConfig).validate_python(spec.training)
        plan = TypeAdapter(PlanConfig).validate_python(spec.plan)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part != "training")
        raise SpecError(f"{where}: is not a training spec: {key}: {first['msg']}, got {first['input']!r}.") from error
    except ValueError as error:
        raise SpecError(f"{where}: is not a training spec: {error}.") from error
    for given, known in ((spec.training, to_json(config)), (spec.plan, to_json(plan))):
        _require_keys(where, set(_names(given)), set(_names(known)))
    problem = training_problem(config)
    if problem:
        raise SpecError(f"{where}: is unusable: {problem}.")
    found = digest_json({name: value for name, value in body.items() if name != "fingerprint"})
    if spec.fingerprint not in (None, found):
        raise SpecError(
            f"{where}: was changed after its fingerprint was taken: expected {found}, got {spec.fingerprint}. Remove "
            "the key fingerprint to train what it says now."
        )
    return spec


def _require_keys(where: str, given: set[str], known: set[str]) -> None:
    unknown, missing = sorted(given - known), sorted(known - given)
    if unknown:
        raise SpecError(f"{where}: key {unknown[0]} is unknown: expected one of {', '.join(sorted(known))}. Remove it.")
    if missing:
        raise SpecError(f"{where}: key {missing[0]} is missing: it decides the model. Set it.")


def _names(value: object, prefix: str = "") -> Iterator[str]:
    """Dotted names of all values in nested objects."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _names(item, f"{prefix}{key}.")
    else:
        yield prefix.rstrip(".")
