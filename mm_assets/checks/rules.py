"""The rules in force for a release: which files its checks and gates are judged by, pinned by digest.

A release pins its rules when it is opened. They are replaced on record only: ``releases/<release>/rules.json`` names
who replaced what, when and why, and the record before it. Files on the machine that runs a command are not read.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
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
    """``mm.rules/1``: the rules that replaced the ones a release was opened with, for the ``number``-th time."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_: Literal["mm.rules/1"] = Field(alias="schema")
    release: str
    number: int = Field(ge=1)
    rules: dict[str, str]
    changed: list[str]
    reason: str = Field(min_length=1, max_length=MAX_REASON_CHARS)
    by: str
    at: str
    previous: str | None = Field(pattern=DIGEST_PATTERN)

    def encode(self) -> bytes:
        """Canonical bytes; their digest is what the next record calls ``previous``."""
        return canonical_json(self.model_dump(by_alias=True))


def rules_key(release: str) -> str:
    """``releases/<release>/rules.json``."""
    return f"releases/{release}/rules.json"


def rules_entry_key(release: str, number: int) -> str:
    """``releases/<release>/rules/<number, 8 digits>.json``."""
    return f"{_entries(release)}{number:08d}.json"


def read_rules_record(store: Store, release: str) -> RulesRecord | None:
    """The latest replacement of a release's rules, or None if there was none.

    The key and the numbered entries are both looked at: deleting one of them, or putting an older record back, does
    not bring older rules into force.

    Raises:
        ObjectCorruptError: one of them holds something else.
    """
    keys = [rules_key(release), *sorted(info.key for info in store.list_keys(_entries(release)))[-1:]]
    found = ((key, store.read_key(key)) for key in keys)
    records = [_parse(store, release, key, current.data) for key, current in found if current is not None]
    return max(records, key=lambda record: record.number, default=None)


def find_rules_problems(store: Store, release: str) -> Iterator[tuple[str, str]]:
    """Keys of a release's rules that do not belong to one history, each with what is wrong with it.

    Raises:
        ObjectCorruptError: a key holds something else.
    """
    record = read_rules_record(store, release)
    expected = None if record is None else record.encode()
    for number in range(0 if record is None else record.number, 0, -1):
        key = rules_entry_key(release, number)
        entry = store.read_key(key)
        if entry is None or entry.data != expected:
            yield key, "is gone" if entry is None else "differs from its place in the history of replaced rules"
            return
        previous = _parse(store, release, key, entry.data).previous
        expected = None if previous is None else store.get_bytes(previous)
    head = store.read_key(rules_key(release))
    if record is not None and (head is None or head.data != record.encode()):
        yield rules_key(release), "is gone" if head is None else "is not the latest replacement of the rules"


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
    store: Store,
    release: str,
    rules: Rules,
    files: Mapping[str, bytes],
    *,
    reason: str,
    by: str,
    optional: Collection[str] = (),
) -> RulesRecord:
    """Replaces rules files of a release, on record; the files that stay are pinned as they are now.

    Args:
        store: Where the release is.
        release: An open release.
        rules: The rules in force.
        files: New bytes by name; their form was checked by the caller.
        reason: Why.
        by: Who.
        optional: Names of rules files that a release need not have been opened with.

    Raises:
        UsageError: no reason is given, or the release has no rules file of that name.
        CommitConflictError: another command replaced them at the same moment.
    """
    if not reason.strip() or len(reason) > MAX_REASON_CHARS:
        raise UsageError(
            f"rules of {release}: have no usable reason: expected 1 to {MAX_REASON_CHARS} characters. Say why."
        )
    before = read_rules_record(store, release)
    known = dict(rules.digests) if before is None else before.rules
    unknown = sorted(set(files) - {*known, *optional})
    if unknown:
        raise UsageError(f"rules {unknown[0]}: are unknown: expected one of {', '.join(sorted(known))}.")
    if before is None:
        # A release of the first version pinned none: those of this version are in no object yet.
        known = {name: store.put_bytes(rules.read(name)) for name in known}
    record = RulesRecord(
        schema="mm.rules/1",
        release=release,
        number=1 if before is None else before.number + 1,
        rules=known | {name: store.put_bytes(data) for name, data in files.items()},
        changed=sorted(files),
        reason=reason.strip(),
        by=by,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        previous=None if before is None else store.put_bytes(before.encode()),
    )
    # The entry decides which of two commands was first. The key only follows: of the two, the later record counts.
    if not store.create_key(rules_entry_key(release, record.number), record.encode()):
        raise CommitConflictError(
            f"rules of {release}: another command replaced them just now. Look at them with "
            f"`mm rules show --release {release}` and try again."
        )
    _put_head(store, rules_key(release), record.encode())
    return record


def _put_head(store: Store, key: str, data: bytes) -> None:
    head = store.read_key(key)
    if head is None:
        store.create_key(key, data)
    else:
        store.replace_key(key, data, head.etag)


def _entries(release: str) -> str:
    return f"releases/{release}/rules/"


def _parse(store: Store, release: str, key: str, data: bytes) -> RulesRecord:
    try:
        record = RulesRecord.model_validate(json.loads(data))
    except (ValidationError, ValueError) as error:
        raise ObjectCorruptError(
            f"{store.uri(key)}: is not a record of rules. Restore the last good version of that key."
        ) from error
    if record.release != release:
        raise ObjectCorruptError(
            f"{store.uri(key)}: is about another release: expected {release}, got {record.release}."
        )
    return record
