"""Thresholds of the gates: ``promotion.yaml`` as a frozen record, read strictly."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mm_assets.checks.yaml_files import Lines, read_yaml
from mm_assets.errors import SettingsError
from mm_assets.evaluation.config import CORRUPTION_MODALITY

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Evidence(_Record):
    """How much there must be to judge."""

    min_samples: Count


class Overall(_Record):
    """Over all labelled samples."""

    min_balanced_accuracy: Share


class Slices(_Record):
    """For every value of the named slices with at least ``min_count`` labelled samples."""

    names: list[Literal["modalities", "language", "label"]]
    min_count: Count
    min_balanced_accuracy: Share


class Calibration(_Record):
    """Expected calibration error, after the temperature where there is one."""

    max_ece: Share


class Corruptions(_Record):
    """Balanced accuracy lost to the named corruptions up to ``max_severity``."""

    names: list[str]
    max_severity: int = Field(ge=1, le=5)
    min_count: Count
    max_drop: Share

    @field_validator("names")
    @classmethod
    def _are_known(cls, names: list[str]) -> list[str]:
        unknown = [name for name in names if name not in CORRUPTION_MODALITY]
        if unknown:
            raise ValueError(f"{unknown[0]} is no corruption: expected some of {', '.join(CORRUPTION_MODALITY)}")
        return names


class Retrieval(_Record):
    """Mean recall@5 as a multiple of chance; judged only without labels."""

    min_pool: Count
    min_lift: float = Field(ge=0.0)


class Thresholds(_Record):
    """``mm.thresholds/1``. Every key is required: a gate nobody set is a gate nobody decided on."""

    schema_: Literal["mm.thresholds/1"] = Field(alias="schema")
    promote_to: Literal["production", "candidate"]
    evidence: Evidence
    overall: Overall
    slices: Slices
    calibration: Calibration
    corruptions: Corruptions
    retrieval: Retrieval

    def to_json(self) -> dict[str, Any]:
        """The thresholds as a recipe's parameter; ``Thresholds.model_validate`` reads it back."""
        return self.model_dump(by_alias=True)


def read_thresholds(path: Path) -> Thresholds:
    """The thresholds of a file.

    Raises:
        SettingsError: it is not YAML, a key is unknown, missing or given twice, or a value does not fit.
    """
    loaded, lines = read_yaml(path, SettingsError)
    try:
        return Thresholds.model_validate(loaded)
    except ValidationError as error:
        raise SettingsError(f"{path}: {_first_problem(error, lines)}.") from error


def _first_problem(error: ValidationError, lines: Lines) -> str:
    first = error.errors()[0]
    place = first["loc"]
    while place and place not in lines:
        place = place[:-1]
    line = f"line {lines.get(place, 1)}: "
    key = ".".join(str(part) for part in first["loc"]) or "the file"
    if first["type"] == "extra_forbidden":
        return f"{line}key {key} is unknown. Correct its spelling or remove it"
    if first["type"] == "missing":
        return f"{line}key {key} is missing. Set it"
    return f"{line}key {key} is unusable: {first['msg']}, got {first['input']!r}. Correct its value"
