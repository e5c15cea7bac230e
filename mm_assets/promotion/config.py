"""Thresholds of the gates: ``promotion.yaml`` as a frozen record, read strictly.

Every section is required, and each is either a gate's limits or ``disabled: REASON``. Limits that no model could miss
are errors: a gate is switched off with a reason on record, or it is on.
"""

from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator

from mm_assets.checks.yaml_files import Lines, line_of, parse_yaml_bytes
from mm_assets.errors import SettingsError
from mm_assets.evaluation.config import CORRUPTION_MODALITY

#: More samples than any evaluation has.
MAX_COUNT = 1_000_000

Minimum = Annotated[float, Field(gt=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]


THRESHOLDS_FILE = "promotion.yaml"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Disabled(_Record):
    """A gate that is switched off, and why."""

    disabled: str

    @field_validator("disabled")
    @classmethod
    def _is_a_reason(cls, reason: str) -> str:
        if not reason.strip():
            raise ValueError("expected the reason as text")
        return reason.strip()


class Evidence(_Record):
    """How much there must be to judge."""

    min_samples: Count


class Overall(_Record):
    """Over all labelled samples."""

    min_balanced_accuracy: Minimum


class Slices(_Record):
    """For every value of the named slices with at least ``min_count`` labelled samples."""

    names: list[Literal["modalities", "language", "label"]] = Field(min_length=1)
    min_count: Count
    min_balanced_accuracy: Minimum


class Calibration(_Record):
    """Expected calibration error, after the temperature where there is one. A coin that is always sure has 0.5."""

    max_ece: float = Field(ge=0.0, lt=0.5)


class Corruptions(_Record):
    """Balanced accuracy lost to the named corruptions up to ``max_severity``."""

    names: list[str] = Field(min_length=1)
    max_severity: int = Field(ge=1, le=5)
    min_count: Count
    max_drop: float = Field(ge=0.0, le=0.9)

    @field_validator("names")
    @classmethod
    def _are_known(cls, names: list[str]) -> list[str]:
        unknown = [name for name in names if name not in CORRUPTION_MODALITY]
        if unknown:
            raise ValueError(f"{unknown[0]} is not a corruption: expected some of {', '.join(CORRUPTION_MODALITY)}")
        return names


class Retrieval(_Record):
    """Mean recall@5 as a multiple of chance; judged only without labels. Chance itself is a lift of 1."""

    min_pool: Count
    min_lift: float = Field(gt=1.0)


class Production(_Record):
    """Against the model in production: how sure a loss must be, over how many samples, and how large it may be."""

    confidence: float = Field(ge=0.5, le=0.999)
    min_samples: Count
    max_loss: float = Field(ge=0.0, le=0.2)


def _switch(value: object) -> str:
    is_off = isinstance(value, Disabled) or (isinstance(value, dict) and "disabled" in cast("dict[str, Any]", value))
    return "disabled" if is_off else "on"


T = TypeVar("T")
Gated = Annotated[Annotated[T, Tag("on")] | Annotated[Disabled, Tag("disabled")], Discriminator(_switch)]


class Thresholds(_Record):
    """``mm.thresholds/2``. Every section is required, so that no gate is left out by accident."""

    schema_: Literal["mm.thresholds/2"] = Field(alias="schema")
    promote_to: Literal["production", "candidate"]
    evidence: Gated[Evidence]
    overall: Gated[Overall]
    slices: Gated[Slices]
    calibration: Gated[Calibration]
    corruptions: Gated[Corruptions]
    retrieval: Gated[Retrieval]
    production: Gated[Production]

    def to_json(self) -> dict[str, Any]:
        """The thresholds as a parameter of an action; ``Thresholds.model_validate`` reads it back."""
        return self.model_dump(by_alias=True)


def parse_thresholds(data: bytes, where: str) -> Thresholds:
    """The thresholds in ``data``.

    Args:
        data: The bytes of the file.
        where: What to call it in an error.

    Raises:
        SettingsError: it is not YAML, a key is unknown, missing or given twice, or a value does not fit.
    """
    loaded, lines = parse_yaml_bytes(data, where, SettingsError)
    if isinstance(loaded, dict) and cast("dict[str, Any]", loaded).get("schema") == "mm.thresholds/1":
        raise SettingsError(
            f"{where}: line {line_of(('schema',), lines)}: key schema is out of date: expected mm.thresholds/2, got "
            "mm.thresholds/1. Change it and add the section `production` with confidence: 0.95, min_samples: 30 and "
            "max_loss: 0.0, which compares a model with the one in production; a limit that switched a gate off "
            "(an empty list, 0 or 1) becomes `disabled: REASON` in that section."
        )
    try:
        return Thresholds.model_validate(loaded)
    except ValidationError as error:
        raise SettingsError(f"{where}: {_first_problem(error, lines)}.") from error


def _first_problem(error: ValidationError, lines: Lines) -> str:
    first = error.errors()[0]
    # The second part of a place inside a section says which of its two forms was read.
    section, form, inside = first["loc"][:1], first["loc"][1:2], first["loc"][2:]
    is_off = form == ("disabled",)
    place = (*section, *inside) if form in (("on",), ("disabled",)) else first["loc"]
    line = f"line {line_of(place, lines)}: "
    key = ".".join(str(part) for part in place) or "the file"
    if first["type"] == "extra_forbidden" and is_off:
        return f"{line}key {key} is given although its section is disabled: expected disabled alone. Remove one of them"
    if first["type"] == "extra_forbidden":
        return f"{line}key {key} is unknown. Correct its spelling or remove it"
    if first["type"] == "missing":
        return f"{line}key {key} is missing. Set it"
    return f"{line}key {key} is unusable: {first['msg']}, got {first['input']!r}. Correct its value"
