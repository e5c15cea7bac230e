"""Actions: all that decides a partition's bytes, and what each action led to.

An action names the objects that are read, in a defined order, and no release, shard or run. ``actions/<fingerprint>``
remembers its outputs; equal work is therefore done once, whatever it is called when it comes up again. Code and codecs
that were proven to make the same bytes (``adoptions/``) find what those before them led to.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mm_assets.errors import NonDeterminismError, ObjectCorruptError, ObjectMissingError
from mm_assets.identity.canonical import Json, canonical_json, digest_hex, digest_json
from mm_assets.store.manifest import DIGEST_PATTERN, Input, Output
from mm_assets.store.objects import Store

logger = logging.getLogger(__name__)

SCHEMA = "mm.action/1"
#: Inputs whose own names are in the bytes: a sample's id begins with its source and drop.
NAMED_ORIGINS = ("drop", "source")


@dataclass(frozen=True, kw_only=True, slots=True)
class Maker:
    """What turns inputs and parameters into bytes: code, in an environment."""

    code: str
    environment: Mapping[str, Json]


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """All that decides a partition's bytes, known before they are computed."""

    asset: str
    code: str
    params: Mapping[str, Json]
    environment: Mapping[str, Json]
    inputs: tuple[Input, ...]

    @property
    def fingerprint(self) -> str:
        """Digest of the action."""
        return self.fingerprint_under(self.maker)

    @property
    def maker(self) -> "Maker":
        """What makes its bytes of its inputs and parameters."""
        return Maker(code=self.code, environment=self.environment)

    def fingerprint_under(self, maker: "Maker") -> str:
        """The fingerprint the same action would have with another maker."""
        return digest_json(
            {
                "asset": self.asset,
                "code": maker.code,
                "params": self.params,
                "environment": maker.environment,
                "inputs": read_objects(self.inputs),
            }
        )


def read_objects(inputs: Iterable[Input]) -> list[dict[str, str]]:
    """``{role, digest}`` of every object that is read, in order; what an action says about its inputs."""
    return [
        {"role": f"{_role(entry)}/{item.name}", "digest": item.digest} for entry in inputs for item in entry.outputs
    ]


def inputs_digest(inputs: Iterable[Input]) -> str:
    """Digest of ``read_objects``."""
    return digest_json(read_objects(inputs))


def _role(entry: Input) -> str:
    if entry.asset in NAMED_ORIGINS:
        return "/".join((entry.asset, *(entry.partition[name] for name in sorted(entry.partition, reverse=True))))
    return entry.role or entry.asset


class ActionRecord(BaseModel):
    """``mm.action/1`` as stored under ``actions/<fingerprint hex>.json``: what the action led to."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_: Literal["mm.action/1"] = Field(alias="schema")
    fingerprint: str = Field(pattern=DIGEST_PATTERN)
    outputs: list[Output]
    stats: dict[str, Any]

    def encode(self) -> bytes:
        """Canonical bytes."""
        return canonical_json(self.model_dump(by_alias=True, exclude_none=True))


class Environments(BaseModel):
    """The environments that an adoption is about, where they are not the same one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    old: dict[str, Any]
    new: dict[str, Any]


class Adoption(BaseModel):
    """``mm.adoption/1``: new code that was seen to make the same bytes as old code on some partitions.

    Without ``environments``, it holds in every environment that both ran in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_: Literal["mm.adoption/1"] = Field(alias="schema")
    asset: str
    old_code: str = Field(pattern=DIGEST_PATTERN)
    new_code: str = Field(pattern=DIGEST_PATTERN)
    partitions: list[str]
    by: str
    at: str
    environments: Environments | None = None

    def before(self, maker: Maker) -> Maker | None:
        """What ``maker``, which has the new code, was proven to equal; None in another environment."""
        if self.environments is None:
            return Maker(code=self.old_code, environment=maker.environment)
        if self.environments.new != maker.environment:
            return None
        return Maker(code=self.old_code, environment=self.environments.old)


def action_key(fingerprint: str) -> str:
    """``actions/<fingerprint hex>.json``."""
    return f"actions/{digest_hex(fingerprint)}.json"


def adoption_prefix(asset: str, new_code: str) -> str:
    """``adoptions/<asset>/<new code hex>/``, below which there is a key per old code."""
    return f"adoptions/{asset}/{digest_hex(new_code)}/"


def find_action(store: Store, action: Action, adopted: Sequence[Maker] = ()) -> ActionRecord | None:
    """What the action led to before, by its own maker or an ``adopted`` one; None where nothing usable is remembered.

    Usable is a record that belongs to this very action and whose outputs exist with the bytes they are named by.
    """
    for maker in (action.maker, *adopted):
        fingerprint = action.fingerprint_under(maker)
        record = _read_record(store, fingerprint)
        if record is not None and _is_sound(store, record):
            return record
    return None


def record_action(store: Store, action: Action, outputs: Sequence[Output], stats: Mapping[str, Json]) -> ActionRecord:
    """Remembers what the action led to. The first writer wins; a damaged record is replaced.

    Raises:
        NonDeterminismError: the action led to other outputs before.
    """
    record = ActionRecord(
        schema=SCHEMA,
        fingerprint=action.fingerprint,
        outputs=sorted(outputs, key=lambda output: output.name),
        stats=dict(stats),
    )
    key = action_key(action.fingerprint)
    while not store.create_key(key, record.encode()):
        current = store.read_key(key)
        if current is None:
            continue
        known = _parse(current.data, action.fingerprint)
        if known is None:
            logger.warning("%s: is not the record of its action; it is replaced", store.uri(key))
            if store.replace_key(key, record.encode(), current.etag):
                break
            continue
        if known.encode() != record.encode():
            raise NonDeterminismError(
                f"{action.asset}: the same action {action.fingerprint} led to other outputs than before: "
                f"{_difference(known, record)}. Nothing was committed."
            )
        break
    return record


def adopted_makers(store: Store, asset: str, maker: Maker) -> list[Maker]:
    """What ``maker`` was proven to equal, nearest first, through any number of adoptions."""
    found: list[Maker] = []
    queue = [maker]
    while queue:
        new = queue.pop(0)
        for adoption in _adoptions(store, adoption_prefix(asset, new.code)):
            old = adoption.before(new)
            if old is not None and old not in found and old != maker:
                found.append(old)
                queue.append(old)
    return found


def _adoptions(store: Store, prefix: str) -> Iterator[Adoption]:
    for info in store.list_keys(prefix):
        current = store.read_key(info.key)
        if current is None:
            continue
        try:
            yield Adoption.model_validate_json(current.data)
        except ValidationError as error:
            raise ObjectCorruptError(
                f"{store.uri(info.key)}: is not an adoption. Delete it, and adopt the code again with `mm adopt`."
            ) from error


def record_adoption(store: Store, adoption: Adoption) -> str:
    """Remembers an adoption and returns its key. The first record of a pair of makers stays."""
    old = adoption.old_code
    if adoption.environments is not None:
        old = digest_json({"code": old, "environments": adoption.environments.model_dump()})
    key = adoption_prefix(adoption.asset, adoption.new_code) + f"{digest_hex(old)}.json"
    store.create_key(key, canonical_json(adoption.model_dump(by_alias=True, exclude_none=True)))
    return key


def find_action_problem(store: Store, fingerprint: str, outputs: Sequence[Output]) -> str | None:
    """How ``outputs`` differ from what the action is remembered to have led to; None where they agree.

    An action that nothing is remembered of is no problem: it is computed again when it is asked for.
    """
    record = _read_record(store, fingerprint)
    if record is None or record.outputs == sorted(outputs, key=lambda output: output.name):
        return None
    return f"its outputs are not those of its action {action_key(fingerprint)}"


def _read_record(store: Store, fingerprint: str) -> ActionRecord | None:
    current = store.read_key(action_key(fingerprint))
    return None if current is None else _parse(current.data, fingerprint)


def _parse(data: bytes, fingerprint: str) -> ActionRecord | None:
    """The record, or None where it is unreadable, of the first version, or of another action."""
    try:
        record = ActionRecord.model_validate(json.loads(data))
    except (ValidationError, ValueError):
        return None
    return record if record.fingerprint == fingerprint else None


def _is_sound(store: Store, record: ActionRecord) -> bool:
    try:
        for output in record.outputs:
            store.check_object(output.digest, size_bytes=output.size_bytes)
    except (ObjectMissingError, ObjectCorruptError) as error:
        logger.warning("%s Its partition is computed again.", error)
        return False
    return True


def _difference(known: ActionRecord, new: ActionRecord) -> str:
    before = {output.name: output.digest for output in known.outputs}
    after = {output.name: output.digest for output in new.outputs}
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            return f"{name}: expected {before.get(name)}, got {after.get(name)}"
    names = sorted(name for name in {*known.stats, *new.stats} if known.stats.get(name) != new.stats.get(name))
    return f"stats {', '.join(names) or 'of outputs'} differ"
