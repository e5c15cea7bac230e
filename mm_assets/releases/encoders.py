"""Named encoders of a store: ``encoders/<name>.json``, written once, says which document a name stands for."""

import re
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mm_assets.drops.record import NAME_PATTERN, NAME_RULE
from mm_assets.errors import CommitConflictError, ObjectCorruptError, UsageError
from mm_assets.identity.canonical import canonical_json
from mm_assets.store.manifest import DIGEST_PATTERN
from mm_assets.store.objects import Store

FOLDER = "encoders/"
#: Encoders that every store has: they cannot be added.
BOOTSTRAP, PRODUCTION = RESERVED = ("bootstrap", "production")


class EncoderEntry(BaseModel):
    """``mm.encoder_entry/1``: what a name stands for, who added it and when."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_: Literal["mm.encoder_entry/1"] = Field(alias="schema")
    name: str = Field(pattern=NAME_PATTERN)
    digest: str = Field(pattern=DIGEST_PATTERN)
    by: str
    at: str


def encoder_key(name: str) -> str:
    """``encoders/<name>.json``."""
    return f"{FOLDER}{name}.json"


def check_encoder_name(name: str) -> None:
    """Refuses a name that no encoder can be added under.

    Raises:
        UsageError: it is malformed, or means something else.
    """
    if not re.fullmatch(NAME_PATTERN, name) or name in RESERVED:
        reserved = " and ".join(RESERVED)
        raise UsageError(f"encoder {name}: is not a valid name: {NAME_RULE}, and not {reserved}. Choose another.")


def name_encoder(store: Store, name: str, digest: str, *, by: str) -> EncoderEntry:
    """Gives an encoder its name. Idempotent; a name never changes what it stands for.

    Raises:
        UsageError: the name is malformed. CommitConflictError: it stands for another encoder.
    """
    check_encoder_name(name)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = EncoderEntry(schema="mm.encoder_entry/1", name=name, digest=digest, by=by, at=now)
    if store.create_key(encoder_key(name), canonical_json(entry.model_dump(by_alias=True))):
        return entry
    known = find_encoder(store, name)
    if known.digest != digest:
        raise CommitConflictError(
            f"encoder {name}: is another one in this store: expected {known.digest}, got {digest}. Choose another name."
        )
    return known


def find_encoder(store: Store, name: str) -> EncoderEntry:
    """What a name stands for.

    Raises:
        UsageError: there is no such encoder. ObjectCorruptError: its key holds something else.
    """
    if not re.fullmatch(NAME_PATTERN, name) or store.read_key(encoder_key(name)) is None:
        known = ", ".join([*RESERVED, *(entry.name for entry in list_encoders(store))])
        raise UsageError(
            f"encoder {name}: is unknown: expected one of {known}. Add it with `mm encoder add FOLDER --name {name}`."
        )
    return read_encoder_entry(store, encoder_key(name))


def read_encoder_entry(store: Store, key: str) -> EncoderEntry:
    """The encoder's entry that a key holds.

    Raises:
        ObjectCorruptError: it holds something else.
    """
    current = store.read_key(key)
    try:
        entry = EncoderEntry.model_validate_json(b"" if current is None else current.data)
    except ValidationError as error:
        raise ObjectCorruptError(
            f"{store.uri(key)}: is not an encoder's entry. Restore the last good version of that key."
        ) from error
    if encoder_key(entry.name) != key:
        raise ObjectCorruptError(f"{store.uri(key)}: is the entry of another encoder: {entry.name}.")
    return entry


def list_encoders(store: Store) -> list[EncoderEntry]:
    """Every named encoder, by name."""
    return [read_encoder_entry(store, key) for key in sorted(info.key for info in store.list_keys(FOLDER))]
