"""The suite file: expectations about a table and a dead-letter budget, as YAML that a data owner edits.

It holds ``expectations``, a list of entries ``type: expect_...`` with that expectation's own arguments (``column``,
``mostly``, ``min_value``, ...), and optionally ``max_dead_letter_fraction``: one for all sources, or ``default`` and
``sources`` with one per source that is judged apart. ``expectations.py`` carries it out.

Invariant: a suite that checks nothing is an error. Each of the two sections is switched off by ``disabled: REASON``
as its only key, and by nothing else.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from mm_assets.checks.yaml_files import Lines, line_of, parse_yaml_bytes
from mm_assets.errors import SettingsError

SUITE_KEYS = ("expectations", "max_dead_letter_fraction")
#: Arguments that hold names of columns.
COLUMN_ARGUMENTS = ("column", "column_A", "column_B", "column_list")
#: Severities that are reported and never fail.
ADVISORY = ("warning", "info")
#: Above this fraction of rejected samples a shard is not a shard of that data.
HIGHEST_DEAD_LETTER_FRACTION = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One expectation of a suite file: its type, its arguments, and ``where`` it is written."""

    kind: str
    arguments: dict[str, Any]
    where: str

    @property
    def rule(self) -> str:
        """``type(column)``, the name of the finding it leads to."""
        return f"{self.kind}({', '.join(self.columns)})"

    @property
    def columns(self) -> list[str]:
        """The columns it reads."""
        found: list[str] = []
        for name in COLUMN_ARGUMENTS:
            value = self.arguments.get(name)
            found.extend(cast("list[str]", value) if isinstance(value, list) else [value] if value else [])
        return found

    @property
    def is_advisory(self) -> bool:
        """Whether it is reported and never fails."""
        return self.arguments.get("severity") in ADVISORY


@dataclass(frozen=True, kw_only=True, slots=True)
class Off:
    """A section that its owner switched off, with the reason that was given."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """A suite file, read; ``where`` is what errors call it. A suite that states no budget has the budget 0.

    ``source_budgets`` are of sources that are judged apart; ``max_dead_letter_fraction`` is of all others together.
    """

    where: str
    entries: tuple[Entry, ...] | Off
    max_dead_letter_fraction: float | Off
    source_budgets: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    where: str
    content: dict[str, Any]
    lines: Lines

    def error(self, place: tuple[str | int, ...], problem: str) -> SettingsError:
        return SettingsError(f"{self.where}: line {line_of(place, self.lines)}: {problem}")


def parse_suite(data: bytes, where: str) -> Suite:
    """The suite in ``data``; its expectations are not yet compared with any table.

    Args:
        data: The bytes of the file.
        where: What to call it in an error.

    Raises:
        SettingsError: it is not YAML, has an unusable entry, or would check nothing; the message names the line.
    """
    document, lines = parse_yaml_bytes(data, where, SettingsError)
    if not isinstance(document, dict):
        raise SettingsError(f"{where}: is not a suite: expected a mapping with {' and '.join(SUITE_KEYS)}.")
    file = _File(where=where, content=cast("dict[str, Any]", document), lines=lines)
    for key in file.content:
        if key not in SUITE_KEYS:
            raise file.error((str(key),), f"{key} is unknown: expected one of {', '.join(SUITE_KEYS)}.")
    if "expectations" not in file.content:
        raise file.error((), f"expectations is missing: expected {_EXPECTED_LIST}.")
    budget, by_source = _read_budgets(file)
    return Suite(where=where, entries=_read_entries(file), max_dead_letter_fraction=budget, source_budgets=by_source)


#: Below it an expectation may fail for most rows: switch it off with a reason instead.
LOWEST_MOSTLY = 0.5
#: Arguments of Great Expectations that choose which rows are looked at.
ROW_FILTERS = ("row_condition", "condition_parser")
_EXPECTED_LIST = "a list of expectations, or `disabled: REASON` to switch them off"


def _read_entries(file: _File) -> tuple[Entry, ...] | Off:
    listed = file.content["expectations"]
    if isinstance(listed, dict):
        return _read_off(file, "expectations", cast("dict[str, Any]", listed))
    if not isinstance(listed, list) or not listed:
        problem = "expectations is empty" if listed in (None, []) else "expectations must be a list"
        raise file.error(("expectations",), f"{problem}: expected {_EXPECTED_LIST}, got {listed!r}.")
    entries = tuple(_read_entry(file, position, entry) for position, entry in enumerate(cast("list[Any]", listed)))
    if all(entry.is_advisory for entry in entries):
        raise file.error(
            ("expectations",),
            f"no expectation can fail: all {len(entries)} have severity {' or '.join(ADVISORY)}: expected one or more "
            "without it, or `disabled: REASON`.",
        )
    return entries


def _read_off(file: _File, section: str, content: dict[str, Any]) -> Off:
    reason = content.get("disabled")
    if set(content) != {"disabled"}:
        raise file.error(
            (section,), f"{section} is unusable: expected `disabled: REASON` alone, got {', '.join(map(str, content))}."
        )
    if not isinstance(reason, str) or not reason.strip():
        raise file.error(
            (section, "disabled"), f"{section}.disabled is unusable: expected the reason as text, got {reason!r}."
        )
    return Off(reason=reason.strip())


def _read_entry(file: _File, position: int, entry: object) -> Entry:
    place = ("expectations", position)
    if not isinstance(entry, dict) or not isinstance(cast("dict[str, Any]", entry).get("type"), str):
        raise file.error(
            place,
            f"expectation {position + 1}: is unusable: expected `type: expect_...` and its arguments, got {entry!r}.",
        )
    arguments = dict(cast("dict[str, Any]", entry))
    kind = arguments.pop("type")
    for name, value in arguments.items():
        problem = _argument_problem(name, value)
        if problem:
            raise file.error((*place, str(name)), f"expectation {position + 1}: {kind}: {name} {problem}")
    if kind.endswith("_between") and not {"min_value", "max_value"} & set(arguments):
        given = ", ".join(map(str, arguments)) or "none"
        problem = f"has no limit: expected min_value, max_value or both, got {given}."
        raise file.error(place, f"expectation {position + 1}: {kind}: {problem}")
    where = f"{file.where}: line {line_of(place, file.lines)}: expectation {position + 1}"
    return Entry(kind=kind, arguments=arguments, where=where)


def _argument_problem(name: str, value: object) -> str | None:
    """Why an argument makes its expectation hold for every row, or None if it does not."""
    if name == "mostly":
        if isinstance(value, bool) or not isinstance(value, int | float) or not LOWEST_MOSTLY <= value <= 1:
            return f"is unusable: expected {LOWEST_MOSTLY} to 1, got {value!r}."
        return None
    if name in ROW_FILTERS:
        return "is not allowed: it would leave rows unchecked. Expected an expectation on all rows; use mostly."
    if value is None or value in ("", [], {}):
        return f"is empty: expected a value, got {value!r}."
    if isinstance(value, float) and not math.isfinite(value):
        return f"is unusable: expected a finite number, got {value!r}."
    return None


def _read_budgets(file: _File) -> tuple[float | Off, dict[str, float]]:
    """The budget of all sources without one of their own, and the budgets of the others."""
    section = "max_dead_letter_fraction"
    value = file.content.get(section, 0.0)
    if not isinstance(value, dict):
        return _fraction(file, (section,), value), {}
    content = cast("dict[str, Any]", value)
    if "sources" not in content:
        return _read_off(file, section, content), {}
    sources = content["sources"]
    if set(content) != {"default", "sources"} or not isinstance(sources, dict) or not sources:
        raise file.error(
            (section,),
            f"{section} is unusable: expected `default:` and `sources:` with a fraction per source, got {content!r}.",
        )
    return _fraction(file, (section, "default"), content["default"]), {
        str(source): _fraction(file, (section, "sources", str(source)), fraction)
        for source, fraction in cast("dict[Any, Any]", sources).items()
    }


def _fraction(file: _File, place: tuple[str, ...], value: object) -> float:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not 0 <= number <= HIGHEST_DEAD_LETTER_FRACTION:
        raise file.error(
            place,
            f"{'.'.join(place)} is unusable: expected 0 to {HIGHEST_DEAD_LETTER_FRACTION}, or `disabled: REASON`, "
            f"got {value!r}.",
        )
    return float(number)
