"""Exclusions on record: samples that a release leaves out after it was opened, each with a reason.

They are a rules file, ``exclusions.yaml``, that no release is opened with: ``mm release exclude`` puts one in force, on
record like any replaced rules. Checks do not judge what is excluded, and the freeze leaves it out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import yaml

from mm_assets.checks.rules import Rules
from mm_assets.checks.validations import Finding
from mm_assets.checks.yaml_files import line_of, parse_yaml_bytes
from mm_assets.errors import SettingsError

EXCLUSIONS = "exclusions.yaml"
SCHEMA = "mm.exclusions/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Exclusions:
    """Ids or globs (``*``, ``?``, ``[...]``) of samples, each with the reason it is excluded for."""

    samples: Mapping[str, str] = field(default_factory=dict[str, str])

    def covers(self, name: str | None) -> bool:
        """Whether a sample, or of what is no sample the raw object, is excluded."""
        if name is None or name in self.samples:
            return name is not None
        return any(re.fullmatch(glob_regex(pattern), name) for pattern in self.samples if is_glob(pattern))

    def encode(self) -> bytes:
        """The file."""
        document = {"schema": SCHEMA, "samples": dict(sorted(self.samples.items()))}
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=10_000).encode()


def is_glob(pattern: str) -> bool:
    """Whether a pattern is more than an id."""
    return bool(set(pattern) & set("*?["))


def glob_regex(pattern: str) -> str:
    """The glob as a regular expression that Python and DuckDB (RE2) read alike: both judge by it.

    ``*`` is any text, ``?`` one character, ``[a-z]`` one of these, ``[!a-z]`` one of the others. A bracket that is not
    closed is a bracket.
    """
    found, place = "(?s)", 0
    while place < len(pattern):
        character = pattern[place]
        end = pattern.find("]", place + 2 + (pattern[place + 1 : place + 2] == "!")) if character == "[" else -1
        if end >= 0:
            found += _class(pattern[place + 1 : end])
            place = end
        else:
            found += {"*": ".*", "?": "."}.get(character) or re.escape(character)
        place += 1
    return found


def _class(content: str) -> str:
    """What stands between brackets; of a range that runs backwards only the ends count."""
    negation, members = ("^", content[1:]) if content.startswith("!") else ("", content)
    found = ""
    while members:
        if len(members) > 2 and members[1] == "-" and members[0] <= members[2]:
            found += f"{_member(members[0])}-{_member(members[2])}"
            members = members[3:]
        else:
            found += _member(members[0])
            members = members[1:]
    return f"[{negation}{found}]"


def _member(character: str) -> str:
    return f"\\{character}" if character in "\\]^[-&~|" else character


def parse_exclusions(data: bytes, where: str) -> Exclusions:
    """The exclusions in a file.

    Raises:
        SettingsError: it has another form; the message names the line.
    """
    document, lines = parse_yaml_bytes(data, where, SettingsError)
    content = cast("dict[str, object]", document) if isinstance(document, dict) else {}
    samples = content.get("samples")
    if set(content) != {"schema", "samples"} or content["schema"] != SCHEMA or not isinstance(samples, dict):
        raise SettingsError(
            f"{where}: line 1: is not a list of exclusions: expected schema: {SCHEMA} and samples: with a reason per "
            "id. Write it with `mm release exclude`."
        )
    found = cast("dict[object, object]", samples)
    for pattern, reason in found.items():
        if not isinstance(pattern, str) or not isinstance(reason, str) or not pattern or not reason.strip():
            raise SettingsError(
                f"{where}: line {line_of(('samples', str(pattern)), lines)}: {pattern!r} is unusable: expected an id "
                f"and a reason, got {reason!r}. Say why."
            )
    return Exclusions(samples=cast("dict[str, str]", found))


def read_exclusions(rules: Rules) -> Exclusions:
    """The exclusions in force; none where nothing was excluded since the release was opened."""
    if EXCLUSIONS not in rules.digests:
        return Exclusions()
    return parse_exclusions(rules.read(EXCLUSIONS), EXCLUSIONS)


def excluded_finding(num_excluded: int) -> Finding:
    """How many samples and dead letters a check did not judge."""
    return Finding(
        rule="exclusions",
        passed=True,
        detail=f"{num_excluded} samples and dead letters are excluded on record and were not judged",
    )
