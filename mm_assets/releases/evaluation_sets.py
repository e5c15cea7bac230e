"""Releases of a store that are named evaluation sets: their test splits never train in a release that is opened later.

``evaluation_sets/<release>.json`` pins the frozen release by digest and is written once.
"""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mm_assets.errors import CommitConflictError, ObjectCorruptError, UsageError
from mm_assets.identity.canonical import canonical_json
from mm_assets.releases.spec import ReleasePin
from mm_assets.store.manifest import DIGEST_PATTERN
from mm_assets.store.objects import Store

FOLDER = "evaluation_sets/"


class EvaluationSet(BaseModel):
    """``mm.evaluation_set/1``: which frozen release, and who named it when and why."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_: Literal["mm.evaluation_set/1"] = Field(alias="schema")
    release: str
    digest: str = Field(pattern=DIGEST_PATTERN)
    reason: str = Field(min_length=1)
    by: str
    at: str


def name_evaluation_set(store: Store, pin: ReleasePin, *, reason: str, by: str) -> EvaluationSet:
    """Names a frozen release an evaluation set. Naming the same one again is idempotent.

    Raises:
        UsageError: no reason is given. CommitConflictError: another frozen state of the release is named already.
    """
    if not reason.strip():
        raise UsageError(f"evaluation set {pin.release}: has no reason: expected one. Say why.")
    entry = EvaluationSet(
        schema="mm.evaluation_set/1",
        release=pin.release,
        digest=pin.digest,
        reason=reason.strip(),
        by=by,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if store.create_key(_key(pin.release), canonical_json(entry.model_dump(by_alias=True))):
        return entry
    known = read_evaluation_set(store, _key(pin.release))
    if known.digest != pin.digest:
        raise CommitConflictError(
            f"evaluation set {pin.release}: is named already in another state: expected {known.digest}, got "
            f"{pin.digest}. What it tests on stays; name another release."
        )
    return known


def list_evaluation_sets(store: Store) -> list[EvaluationSet]:
    """Every named evaluation set, by release."""
    return [read_evaluation_set(store, info.key) for info in sorted(store.list_keys(FOLDER), key=lambda info: info.key)]


def _key(release: str) -> str:
    return f"{FOLDER}{release}.json"


def read_evaluation_set(store: Store, key: str) -> EvaluationSet:
    """The evaluation set that a key names.

    Raises:
        ObjectCorruptError: it holds something else.
    """
    current = store.read_key(key)
    try:
        entry = EvaluationSet.model_validate_json(b"" if current is None else current.data)
    except ValidationError as error:
        raise ObjectCorruptError(
            f"{store.uri(key)}: does not name an evaluation set. Restore the last good version of that key."
        ) from error
    if _key(entry.release) != key:
        raise ObjectCorruptError(f"{store.uri(key)}: names another release: {entry.release}.")
    return entry
