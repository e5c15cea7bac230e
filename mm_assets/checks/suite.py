"""The suite file: expectations about a table and a dead-letter budget, as YAML that a data owner edits.

It holds ``expectations``, a list of entries ``type: expect_...`` with that expectation's own arguments (``column``,
``mostly``, ``min_value``, ...), and optionally ``max_dead_letter_fraction``. ``expectations.py`` carries it out.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mm_assets.checks.yaml_files import Lines, read_yaml
from mm_assets.errors import SettingsError

SUITE_KEYS = ("expectations", "max_dead_letter_fraction")
#: Arguments that hold names of columns.
COLUMN_ARGUMENTS = ("column", "column_A", "column_B", "column_list")


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """A suite file, read."""

    path: Path
    entries: tuple[Entry, ...]
    max_dead_letter_fraction: float | None


def read_suite(path: Path) -> Suite:
    """The suite in ``path``; its expectations are not yet compared with any table.

    Raises:
        SettingsError: the file is missing, is no YAML, or has an entry that is none; the message names the line.
    """
    document, lines = read_yaml(path, SettingsError)
    if not isinstance(document, dict):
        raise SettingsError(f"{path}: is not a suite: expected a mapping with {' and '.join(SUITE_KEYS)}.")
    content = cast("dict[str, Any]", document)
    for key in content:
        if key not in SUITE_KEYS:
            raise SettingsError(
                f"{path}: line {lines[(key,)]}: {key} is unknown: expected one of {', '.join(SUITE_KEYS)}."
            )
    listed = content.get("expectations") or []
    if not isinstance(listed, list):
        raise SettingsError(f"{path}: line {lines[('expectations',)]}: expectations must be a list.")
    entries = tuple(
        _read_entry(path, lines, position, entry) for position, entry in enumerate(cast("list[Any]", listed))
    )
    return Suite(path=path, entries=entries, max_dead_letter_fraction=_read_budget(path, lines, content))


def _read_entry(path: Path, lines: Lines, position: int, entry: object) -> Entry:
    line = lines.get(("expectations", position), 1)
    where = f"{path}: line {line}: expectation {position + 1}"
    if not isinstance(entry, dict) or not isinstance(cast("dict[str, Any]", entry).get("type"), str):
        raise SettingsError(f"{where}: is unusable: expected `type: expect_...` and its arguments, got {entry!r}.")
    arguments = dict(cast("dict[str, Any]", entry))
    return Entry(kind=arguments.pop("type"), arguments=arguments, where=where)


def _read_budget(path: Path, lines: Lines, content: dict[str, Any]) -> float | None:
    value = content.get("max_dead_letter_fraction")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        line = lines[("max_dead_letter_fraction",)]
        raise SettingsError(
            f"{path}: line {line}: max_dead_letter_fraction is unusable: expected 0 to 1, got {value!r}."
        )
    return float(value)
