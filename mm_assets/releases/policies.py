"""Policies of a store: named files with numbered versions, written once, and how a release pins one by digest.

``policies/<name>/<version, 8 digits>.json`` names the object that holds the file, who added it, when and why.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mm_assets.errors import CommitConflictError, ObjectCorruptError, UsageError
from mm_assets.identity.canonical import canonical_json
from mm_assets.settings import PACKAGED_CONFIG
from mm_assets.store.manifest import DIGEST_PATTERN
from mm_assets.store.objects import Store

FOLDER = "policies/"


class PolicyEntry(BaseModel):
    """``mm.policy_entry/1``: one version of a policy. ``file`` is the name it was added under: it says YAML or SQL."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_: Literal["mm.policy_entry/1"] = Field(alias="schema")
    name: str
    version: int = Field(ge=1)
    file: str
    digest: str = Field(pattern=DIGEST_PATTERN)
    by: str
    at: str
    previous: str | None = Field(pattern=DIGEST_PATTERN)


def packaged_policies() -> dict[str, bytes]:
    """The policy files of this version, by name."""
    return {path.stem: path.read_bytes() for path in sorted((PACKAGED_CONFIG / "policies").glob("*.yaml"))}


def policy_key(name: str, version: int) -> str:
    """``policies/<name>/<version, 8 digits>.json``."""
    return f"{FOLDER}{name}/{version:08d}.json"


def list_policies(store: Store) -> list[PolicyEntry]:
    """Every version of every policy of the store, by name and version."""
    return [entry for name in sorted(store.list_folders(FOLDER)) for entry in _versions(store, name)]


def add_policy(store: Store, name: str, file: str, data: bytes, *, by: str) -> PolicyEntry:
    """Stores a policy file as the next version of ``name``. Adding the bytes of the latest version again is idempotent.

    Args:
        store: Where it is kept.
        name: The policy's; its form was checked by the caller.
        file: Name of the file.
        data: Its bytes.
        by: Who.

    Raises:
        UsageError: a packaged policy has that name.
        CommitConflictError: another command added a version at the same moment.
    """
    if name in packaged_policies():
        raise UsageError(f"policy {name}: is packaged and does not change: expected another name. Rename the policy.")
    latest = max(_versions(store, name), key=lambda entry: entry.version, default=None)
    digest = store.put_bytes(data)
    if latest is not None and (latest.digest, latest.file) == (digest, file):
        return latest
    entry = PolicyEntry(
        schema="mm.policy_entry/1",
        name=name,
        version=latest.version + 1 if latest else 1,
        file=file,
        digest=digest,
        by=by,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        previous=latest.digest if latest else None,
    )
    if not store.create_key(policy_key(name, entry.version), canonical_json(entry.model_dump(by_alias=True))):
        raise CommitConflictError(
            f"policy {name}: another command added version {entry.version} just now. "
            "Look at it with `mm policy list` and try again."
        )
    return entry


def pin_policy(store: Store, wanted: str) -> dict[str, str]:
    """What a spec pins of the policy ``NAME`` (its latest version) or ``NAME@VERSION``.

    Raises:
        UsageError: there is no such policy, or no such version.
    """
    name, _, version = wanted.partition("@")
    packaged = packaged_policies().get(name)
    if packaged is not None and not version:
        return {"name": name, "file": f"{name}.yaml", "digest": store.put_bytes(packaged)}
    entries = {str(entry.version): entry for entry in _versions(store, name)}
    if not entries:
        known = sorted({*packaged_policies(), *store.list_folders(FOLDER)})
        raise UsageError(
            f"policy {wanted}: is unknown: expected one of {', '.join(known)}. Add it with `mm policy add FILE`."
        )
    if version and version not in entries:
        raise UsageError(f"policy {wanted}: has no such version: expected one of {', '.join(entries)}.")
    entry = entries[version or max(entries, key=int)]
    return {"name": name, "version": str(entry.version), "file": entry.file, "digest": entry.digest}


def read_policy_entry(store: Store, key: str) -> PolicyEntry:
    """The version of a policy that a key holds.

    Raises:
        ObjectCorruptError: it holds something else.
    """
    current = store.read_key(key)
    try:
        entry = PolicyEntry.model_validate_json(b"" if current is None else current.data)
    except ValidationError as error:
        raise ObjectCorruptError(
            f"{store.uri(key)}: is not a version of a policy. Restore the last good version of that key."
        ) from error
    if policy_key(entry.name, entry.version) != key:
        raise ObjectCorruptError(f"{store.uri(key)}: is the entry of another policy: {entry.name}.")
    return entry


def _versions(store: Store, name: str) -> Iterator[PolicyEntry]:
    """The versions of a policy, oldest first."""
    for info in sorted(store.list_keys(f"{FOLDER}{name}/"), key=lambda info: info.key):
        yield read_policy_entry(store, info.key)
