"""A curation policy: per reason an SQL expression over one sample's signals, and the file it is written in.

A policy file is YAML (``mm.policy/1``: a name, and under ``exclude`` a reason and the expression that leaves a sample
out for it) or SQL (one expression that is true for the samples that stay; the file's name is the policy's). Where an
expression is NULL, because the sample lacks the modality it is about, the sample stays.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from mm_assets.checks.yaml_files import line_of, parse_yaml_bytes
from mm_assets.errors import SpecError

SCHEMA = "mm.policy/1"
KEYS = ("schema", "name", "description", "exclude")
MAX_REASONS = 48
#: Names of policies and of reasons: they are part of the reasons of a frozen release, which commas separate.
_NAME = r"[a-z0-9][a-z0-9_-]{0,62}"
PREFIX = "policy:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """A policy.

    Attributes:
        name: What the reasons of a release call it.
        exclude: Per reason an expression that leaves a sample out where it is true.
        keep: An expression that leaves a sample out where it is false; None for a policy with reasons.
    """

    name: str
    exclude: Mapping[str, str]
    keep: str | None = None

    @property
    def expressions(self) -> dict[str, str]:
        """By the reason that a release records: an expression that is true where a sample is left out."""
        if self.keep is not None:
            # The newline ends a comment in the expression.
            return {f"{PREFIX}{self.name}": f"NOT (\n{self.keep}\n)"}
        return {f"{PREFIX}{self.name}:{reason}": sql for reason, sql in self.exclude.items()}

    def to_params(self) -> dict[str, Any]:
        """What decides bytes of a release: the policy without comments and description."""
        if self.keep is not None:
            return {"name": self.name, "sql": self.keep}
        return {"name": self.name, "exclude": dict(self.exclude)}


def policy_of(params: Mapping[str, Any]) -> Policy:
    """The policy that ``Policy.to_params`` described."""
    return Policy(name=params["name"], exclude=params.get("exclude", {}), keep=params.get("sql"))


def parse_policy(data: bytes, where: str) -> Policy:
    """The policy in a file; its expressions are not yet compared with the columns they may name.

    Args:
        data: The bytes of the file.
        where: Its name or path, which says whether it is SQL.

    Raises:
        SpecError: it has no usable form; the message names the file and, in YAML, the line.
    """
    stem, _, suffix = where.rpartition("/")[2].rpartition(".")
    if suffix == "sql":
        return _parse_sql(data, where, stem)
    document, lines = parse_yaml_bytes(data, where, SpecError)
    if not isinstance(document, dict):
        raise SpecError(f"{where}: is not a policy: expected a mapping with {', '.join(KEYS)}.")
    content = cast("dict[str, Any]", document)
    for problem, place in _problems(content):
        raise SpecError(f"{where}: line {line_of(place, lines)}: {problem}")
    return Policy(
        name=content["name"], exclude={str(reason): sql.strip() for reason, sql in content["exclude"].items()}
    )


def _parse_sql(data: bytes, where: str, name: str) -> Policy:
    if not re.fullmatch(_NAME, name):
        raise SpecError(f"{where}: is not named like a policy: expected {_NAME}.sql. Rename the file.")
    try:
        text = data.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise SpecError(f"{where}: is not UTF-8: byte {error.start}. Save the file as UTF-8.") from error
    if not text:
        raise SpecError(f"{where}: is empty: expected an expression that is true for the samples that stay.")
    return Policy(name=name, exclude={}, keep=text)


def _problems(content: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """What is wrong with a YAML policy, each with its place in the document."""
    found: list[tuple[str, tuple[str, ...]]] = [
        (f"{key} is unknown: expected one of {', '.join(KEYS)}.", (key,))
        for key in map(str, content)
        if key not in KEYS
    ]
    if content.get("schema") != SCHEMA:
        found.append((f"schema is unusable: expected {SCHEMA}, got {content.get('schema')!r}.", ("schema",)))
    if not isinstance(content.get("name"), str) or not re.fullmatch(_NAME, content["name"]):
        found.append((f"name is unusable: expected {_NAME}, got {content.get('name')!r}.", ("name",)))
    exclude = content.get("exclude")
    if not isinstance(exclude, dict) or len(cast("dict[Any, Any]", exclude)) > MAX_REASONS:
        expected = f"a reason and an expression each, {MAX_REASONS} at most"
        return [*found, (f"exclude is unusable: expected {expected}, got {exclude!r}.", ("exclude",))]
    for reason, sql in cast("dict[Any, Any]", exclude).items():
        if not isinstance(reason, str) or not re.fullmatch(_NAME, reason):
            found.append((f"reason {reason!r} is unusable: expected {_NAME}.", ("exclude", str(reason))))
        if not isinstance(sql, str) or not sql.strip():
            found.append(
                (f"reason {reason}: is unusable: expected an expression, got {sql!r}.", ("exclude", str(reason)))
            )
    return found
