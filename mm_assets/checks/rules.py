"""The rules in force for a release: which files its checks and gates are judged by, pinned by digest.

A release pins its rules when it is opened. They are replaced on record only: ``releases/<release>/rules.json`` names
who replaced what, when and why, and the record before it. Files on the machine that runs a command are not read.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mm_assets.errors import CommitConflictError, ObjectCorruptError, SettingsError, UsageError
from mm_assets.identity.canonical import canonical_json, digest_bytes
from mm_assets.store.manifest import DIGEST_PATTERN
from mm_assets.store.objects import Store

MAX_REASON_CHARS = 2_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """Rules files by name: their digests, and how their bytes are read."""

    digests: Mapping[str, str]
    load: Callable[[str], bytes]

    def read(self, name: str) -> bytes:
        """The bytes of a rules file.

        Raises:
            SettingsError: the release pins no such file.
        """
        digest = self.digest(name)
        data = self.load(name)
        if digest_bytes(data) != digest:
            raise ObjectCorruptError(f"rules {name}: do not match their digest {digest}. Set them again.")
        return data

    def digest(self, name: str) -> str:
        """Digest of a rules file.

        Raises:
            SettingsError: the release pins no such file.
        """
        if name not in self.digests:
            raise SettingsError(
                f"rules {name}: are not pinned: expected one of {', '.join(sorted(self.digests)) or 'no file'}. "
                "Pin them with `mm rules set`."
            )
        return self.digests[name]


class RulesRecord(BaseModel):
    """``mm.rules/1``: the rules that replaced the ones a release was opened with."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_: Literal["mm.rules/1"] = Field(alias="schema")
    release: str
    rules: dict[str, str]
    changed: list[str]
    reason: str = Field(min_length=1, max_length=MAX_REASON_CHARS)
    by: str
    at: str
    previous: str | None = Field(pattern=DIGEST_PATTERN)


def rules_key(release: str) -> str:
    """``releases/<release>/rules.json``."""
    return f"releases/{release}/rules.json"


def read_rules_record(store: Store, release: str) -> RulesRecord | None:
    """The latest replacement of a release's rules, or None if there was none.

    Raises:
        ObjectCorruptError: the key holds something else.
    """
    current = store.read_key(rules_key(release))
    return None if current is None else _parse(store, release, current.data)


def rules_in_force(store: Store, release: str, pinned: Mapping[str, str], packaged: Mapping[str, bytes]) -> Rules:
    """The rules of a release now.

    Args:
        store: Where the release is.
        release: An open release.
        pinned: The rules it was opened with; none for a release that the first version opened.
        packaged: The rules of this version, which such a release is judged by.
    """
    record = read_rules_record(store, release)
    digests = dict(pinned) or {name: digest_bytes(data) for name, data in packaged.items()}
    if record is not None:
        digests = record.rules

    def load(name: str) -> bytes:
        data = packaged.get(name)
        return data if data is not None and digest_bytes(data) == digests[name] else store.get_bytes(digests[name])

    return Rules(digests=digests, load=load)


def replace_rules(
    store: Store, release: str, rules: Rules, files: Mapping[str, bytes], *, reason: str, by: str
) -> RulesRecord:
    """Replaces rules files of a release, on record; the files that stay are pinned as they are now.

    Args:
        store: Where the release is.
        release: An open release.
        rules: The rules in force.
        files: New bytes by name; their form was checked by the caller.
        reason: Why.
        by: Who.

    Raises:
        UsageError: no reason is given, or the release has no rules file of that name.
        CommitConflictError: another command replaced them at the same moment.
    """
    if not reason.strip() or len(reason) > MAX_REASON_CHARS:
        raise UsageError(
            f"rules of {release}: have no usable reason: expected 1 to {MAX_REASON_CHARS} characters. Say why."
        )
    current = store.read_key(rules_key(release))
    before = None if current is None else _parse(store, release, current.data)
    known = dict(rules.digests) if before is None else before.rules
    unknown = sorted(set(files) - set(known))
    if unknown:
        raise UsageError(f"rules {unknown[0]}: are unknown: expected one of {', '.join(sorted(known))}.")
    if before is None:
        # A release of the first version pinned none: those of this version are in no object yet.
        known = {name: store.put_bytes(rules.read(name)) for name in known}
    record = RulesRecord(
        schema="mm.rules/1",
        release=release,
        rules=known | {name: store.put_bytes(data) for name, data in files.items()},
        changed=sorted(files),
        reason=reason.strip(),
        by=by,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        previous=None if current is None else store.put_bytes(current.data),
    )
    data = canonical_json(record.model_dump(by_alias=True))
    key = rules_key(release)
    moved = store.create_key(key, data) if current is None else store.replace_key(key, data, current.etag)
    if not moved:
        raise CommitConflictError(
            f"rules of {release}: another command replaced them just now. Look at them with "
            f"`mm rules show --release {release}` and try again."
        )
    return record


def _parse(store: Store, release: str, data: bytes) -> RulesRecord:
    try:
        record = RulesRecord.model_validate(json.loads(data))
    except (ValidationError, ValueError) as error:
        raise ObjectCorruptError(
            f"{store.uri(rules_key(release))}: is not a record of rules. Restore the last good version of that key."
        ) from error
    if record.release != release:
        raise ObjectCorruptError(
            f"{store.uri(rules_key(release))}: is about another release: expected {release}, got {record.release}."
        )
    return record
