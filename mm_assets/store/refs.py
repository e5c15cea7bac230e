"""What a partition currently is: one small key per partition, moved by one conditional write.

A ref repeats the outputs of its manifest, so that what is made from a partition is known after one small read.
Volatile facts (attempt, run id, time, seconds) live here and nowhere else. A lost answer is read back by attempt
id, so that "someone else won" (``CommitConflictError``) and "my write landed" are told apart.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mm_assets.errors import CommitConflictError, ObjectCorruptError, ObjectMissingError
from mm_assets.identity.canonical import canonical_json
from mm_assets.store.manifest import (
    DIGEST_PATTERN,
    Input,
    NamedDigest,
    Output,
    Partition,
    content_digest,
    read_manifest,
)
from mm_assets.store.objects import Store

SCHEMA = "mm.ref/2"
FIRST_SCHEMA = "mm.ref/1"
#: Keys below ``refs/`` that do not belong to a partition: the registry, and what the first version knew of its checks.
NOT_REFS = ("refs/validations/", "refs/registry/")


class Ref(BaseModel):
    """``mm.ref/2``: the manifest a partition points to, and the attempt that moved it there.

    ``inputs`` is the digest of the objects its action read. A ref of the first version has none, and therefore never
    counts as made from what its inputs are now.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_: Literal["mm.ref/1", "mm.ref/2"] = Field(alias="schema")
    asset: str
    release: str
    shard: str | None
    manifest: str = Field(pattern=DIGEST_PATTERN)
    content: str = Field(pattern=DIGEST_PATTERN)
    fingerprint: str = Field(pattern=DIGEST_PATTERN)
    inputs: str | None = Field(pattern=DIGEST_PATTERN)
    outputs: list[Output]
    attempt: str
    run_id: str | None
    committed_at: str
    cached: bool
    wall_s: float
    cpu_s: float

    @property
    def partition(self) -> Partition:
        """The partition this ref is about."""
        return Partition(release=self.release, shard=self.shard)

    def output(self, name: str) -> Output:
        """The output called ``name``.

        Raises:
            ObjectMissingError: the partition has no such output.
        """
        for output in self.outputs:
            if output.name == name:
                return output
        raise ObjectMissingError(f"{self.asset} {self.partition.path}: has no output {name}. Materialize it again.")

    def as_input(self, *names: str, role: str | None = None) -> Input:
        """The partition as an input of which the outputs ``names`` are read."""
        return Input(
            asset=self.asset,
            partition=self.partition.names,
            manifest=self.manifest,
            outputs=[NamedDigest(name=name, digest=self.output(name).digest) for name in names],
            role=role,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RefState:
    """A ref as it was read, with the ETag that fences the write after it. Both are None for a new partition."""

    ref: Ref | None
    etag: str | None


def ref_key(asset: str, partition: Partition) -> str:
    """``refs/<asset>/<release>[/<shard>].json``."""
    return f"refs/{asset}/{partition.path}.json"


def read_ref(store: Store, asset: str, partition: Partition) -> RefState:
    """What a partition currently is.

    Raises:
        ObjectCorruptError: the key holds something else than a ref.
    """
    key = ref_key(asset, partition)
    current = store.read_key(key)
    if current is None:
        return RefState(ref=None, etag=None)
    return RefState(ref=_parse(store, key, current.data), etag=current.etag)


def read_ref_key(store: Store, key: str) -> Ref:
    """The ref under a listed key.

    Raises:
        ObjectMissingError: the key is gone. ObjectCorruptError: it holds something else than its partition's ref.
    """
    current = store.read_key(key)
    if current is None:
        raise ObjectMissingError(f"{store.uri(key)}: does not exist.")
    return _parse(store, key, current.data)


def require_ref(store: Store, asset: str, partition: Partition) -> Ref:
    """What a partition currently is.

    Raises:
        ObjectMissingError: it was never materialized.
    """
    ref = read_ref(store, asset, partition).ref
    if ref is None:
        raise ObjectMissingError(f"{asset} {partition.path}: is not materialized. Materialize it first.")
    return ref


def list_refs(store: Store, asset: str | None = None) -> Iterator[Ref]:
    """Every partition's ref, or those of one asset, in the server's listing order (sort where order matters)."""
    for info in store.list_keys("refs/" if asset is None else f"refs/{asset}/"):
        if info.key.startswith(NOT_REFS):
            continue
        current = store.read_key(info.key)
        if current is not None:
            yield _parse(store, info.key, current.data)


def move_ref(store: Store, new: Ref, seen: RefState) -> None:
    """Moves a ref from the state that was ``seen`` to ``new`` with one conditional write.

    An attempt that lost against another one with the same manifest has not lost anything and returns.

    Raises:
        CommitConflictError: another writer moved the ref to another manifest since ``seen``.
        CommitUnknownError: the answer was lost and could not be read back.
    """
    key = ref_key(new.asset, new.partition)
    data = canonical_json(new.model_dump(by_alias=True))
    moved = store.create_key(key, data) if seen.etag is None else store.replace_key(key, data, seen.etag)
    if moved:
        return
    current = read_ref(store, new.asset, new.partition).ref
    if current is None or current.manifest != new.manifest:
        raise CommitConflictError(
            f"{new.asset} {new.partition.path}: attempt {current.attempt if current else 'unknown'} committed first: "
            f"expected to commit {new.manifest}, found {current.manifest if current else 'a deleted ref'}. "
            "Run the partition again."
        )


def _parse(store: Store, key: str, data: bytes) -> Ref:
    try:
        document = json.loads(data)
        if isinstance(document, dict) and document.get("schema") == FIRST_SCHEMA:
            manifest = read_manifest(store, document["manifest"])
            document |= {
                "content": manifest.content,
                "inputs": None,
                "outputs": [output.model_dump() for output in manifest.outputs],
            }
        ref = Ref.model_validate(document)
    except ObjectCorruptError:
        # The manifest that a ref of the first version names is damaged, and not the ref.
        raise
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise ObjectCorruptError(f"{store.uri(key)}: is not a ref. Delete it and run its partition again.") from error
    if ref.content != content_digest(ref.outputs) or ref_key(ref.asset, ref.partition) != key:
        raise ObjectCorruptError(
            f"{store.uri(key)}: is not the ref of its partition. Delete it and run its partition again."
        )
    return ref
