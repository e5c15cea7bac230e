"""``source.yaml``: who delivers raw data and on which terms. One description per source, pinned by every release."""

from datetime import date
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mm_assets.checks.yaml_files import Lines, parse_yaml
from mm_assets.drops.record import NAME_PATTERN
from mm_assets.errors import DropError

#: What a generated description says where its owner has said nothing yet.
UNDECLARED = "not declared"


class Approval(BaseModel):
    """Whether the source may be used, who said so and when (ISO date)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    status: Literal["approved", "pending", "revoked"]
    by: str
    at: str | None


class Source(BaseModel):
    """``mm.source/1``. ``allowed_uses`` is a list of purposes; the annotation fields are free text.

    ``retention`` is an ISO date (the last day), an ISO duration (``P5Y``, from ``captured_to`` on) or free text, which
    sets no end. ``consent`` is that of the people the data are about.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_: Literal["mm.source/1"] = Field(alias="schema")
    source: str = Field(pattern=NAME_PATTERN)
    source_system: str
    owner: str
    licence: str
    allowed_uses: list[str]
    retention: str
    privacy_class: str
    label_schema_version: str
    annotation_guideline_version: str
    annotator_cohort: str
    adjudication_rule: str
    approval: Approval
    consent: Literal["given", "not required", "withdrawn", "not declared"] = UNDECLARED

    @field_validator("retention", mode="before")
    @classmethod
    def _date_as_text(cls, value: object) -> object:
        """YAML reads an ISO date without quotation marks as a date."""
        return value.isoformat() if isinstance(value, date) else value

    @property
    def undeclared(self) -> list[str]:
        """Names of the fields whose owner has said nothing yet."""
        values = self.model_dump(by_alias=True)
        return [name for name, value in values.items() if value in (UNDECLARED, [UNDECLARED])]

    @property
    def is_undeclared(self) -> bool:
        """Whether this is the generated description, untouched."""
        return len(self.undeclared) == len(Source.model_fields) - 3

    @property
    def annotation(self) -> dict[str, str]:
        """What a drop records about its labels, unless it says otherwise."""
        return {
            "label_schema_version": self.label_schema_version,
            "guideline_version": self.annotation_guideline_version,
            "annotator_cohort": self.annotator_cohort,
            "adjudication_rule": self.adjudication_rule,
        }


def parse_source(data: bytes, where: str) -> Source:
    """The source described by ``data``.

    Raises:
        DropError: it is not a source description; the message names ``where``, the line and the field.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DropError(f"{where}: is not UTF-8: byte {error.start}. Save the file as UTF-8.") from error
    document, lines = parse_yaml(text, where, DropError)
    try:
        return Source.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise DropError(
            f"{where}: line {_line_of(first['loc'], lines)}: {'.'.join(map(str, first['loc'])) or 'document'}: "
            f"{first['msg']}. Correct the description of the source."
        ) from error


def source_template(source: str) -> bytes:
    """A valid description of ``source`` that says plainly that its owner has declared nothing."""
    return f"""\
# Describes the source of this drop. Whoever owns the data fills it in before the first push: a source is
# described once, and every release pins this file by digest.
schema: mm.source/1
source: "{source}"
source_system: {UNDECLARED}
owner: {UNDECLARED}
licence: {UNDECLARED}
allowed_uses:
  - {UNDECLARED}
retention: {UNDECLARED}
privacy_class: {UNDECLARED}
label_schema_version: {UNDECLARED}
annotation_guideline_version: {UNDECLARED}
annotator_cohort: {UNDECLARED}
adjudication_rule: {UNDECLARED}
approval:
  status: pending
  by: {UNDECLARED}
  at: null
consent: {UNDECLARED}
""".encode()


def _line_of(place: tuple[int | str, ...], lines: Lines) -> int:
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)
