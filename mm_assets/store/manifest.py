"""The manifest: what a partition is and what it was made from, as canonical JSON naming inputs and outputs by digest.

Invariant: no clock, host or run id. ``content`` is the digest of the outputs alone, so two partitions that hold the
same bytes have the same content, under any release name and by any code.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mm_assets.errors import ObjectCorruptError, ObjectMissingError
from mm_assets.identity.canonical import canonical_json, digest_json
from mm_assets.store.objects import Store

DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
SCHEMA = "mm.manifest/2"
FIRST_SCHEMA = "mm.manifest/1"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Partition(_Record):
    """What a manifest or ref is about: a release, and for shard-level assets one of its shards."""

    release: str
    shard: str | None = None

    @property
    def path(self) -> str:
        """``release`` or ``release/shard``."""
        return self.release if self.shard is None else f"{self.release}/{self.shard}"

    @property
    def names(self) -> dict[str, str]:
        """The partition as a manifest's input names it."""
        return self.model_dump(exclude_none=True)


class NamedDigest(_Record):
    """An object that is read: its name among the outputs of what made it, and its digest."""

    name: str
    digest: str = Field(pattern=DIGEST_PATTERN)


class Input(_Record):
    """One input: which objects of it are read, and the manifest that says where they come from.

    ``manifest`` is the upstream partition's manifest; of a drop it is ``drop.json``, of a source ``source.yaml``, of an
    encoder the encoder itself. ``role`` tells two inputs of one asset apart (``parent``, ``champion``).
    """

    asset: str
    partition: dict[str, str]
    manifest: str = Field(pattern=DIGEST_PATTERN)
    outputs: list[NamedDigest]
    role: str | None = None

    def digest(self, name: str) -> str:
        """Digest of the object called ``name``.

        Raises:
            ObjectMissingError: it is not among the objects that are read.
        """
        for entry in self.outputs:
            if entry.name == name:
                return entry.digest
        raise ObjectMissingError(
            f"input {self.role or self.asset} {'/'.join(self.partition.values())}: {name} is not read: "
            f"expected one of {', '.join(entry.name for entry in self.outputs)}."
        )


class Output(_Record):
    """One output object."""

    name: str
    digest: str = Field(pattern=DIGEST_PATTERN)
    size_bytes: int
    media_type: str
    num_rows: int | None = None


def content_digest(outputs: Iterable[Output]) -> str:
    """Digest of the outputs' names and digests, whatever their order."""
    return digest_json(sorted([output.name, output.digest] for output in outputs))


class Manifest(_Record):
    """``mm.manifest/2``; see DESIGN section 3. ``stats`` are small deterministic facts for tables and previews."""

    schema_: Literal["mm.manifest/1", "mm.manifest/2"] = Field(alias="schema")
    asset: str
    partition: Partition
    fingerprint: str = Field(pattern=DIGEST_PATTERN)
    content: str = Field(pattern=DIGEST_PATTERN)
    code: str = Field(pattern=DIGEST_PATTERN)
    params: dict[str, Any]
    environment: dict[str, Any]
    inputs: list[Input]
    outputs: list[Output]
    stats: dict[str, Any]

    def output(self, name: str) -> Output:
        """The output called ``name``.

        Raises:
            ObjectMissingError: the manifest has no such output.
        """
        for output in self.outputs:
            if output.name == name:
                return output
        raise ObjectMissingError(
            f"{self.asset} {self.partition.path}: has no output {name}: "
            f"expected one of {', '.join(o.name for o in self.outputs)}."
        )

    def inputs_of(self, asset: str, role: str | None = None) -> list[Input]:
        """The inputs of that asset in that role, in order."""
        return [entry for entry in self.inputs if (entry.asset, entry.role) == (asset, role)]

    def input(self, asset: str, role: str | None = None) -> Input:
        """The only input of that asset in that role.

        Raises:
            ObjectMissingError: there is not exactly one.
        """
        found = self.inputs_of(asset, role)
        if len(found) != 1:
            raise ObjectMissingError(
                f"{self.asset} {self.partition.path}: expected one input {role or asset}, got {len(found)}."
            )
        return found[0]

    def encode(self) -> bytes:
        """Canonical bytes; a partition's ref names their digest."""
        return canonical_json(self.model_dump(by_alias=True, exclude_none=True))


def read_manifest(store: Store, digest: str) -> Manifest:
    """The manifest named ``digest``, verified and validated; one of the first version is translated.

    Raises:
        ObjectMissingError: there is no such object.
        ObjectCorruptError: its bytes have another digest, are not a manifest, or state another content than they list.
    """
    return parse_manifest(store.get_bytes(digest), store.object_uri(digest))


def parse_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in ``data``; one of the first version is translated.

    Raises:
        ObjectCorruptError: it is not a manifest, or states another content than it lists; the message names ``where``.
    """
    try:
        document = json.loads(data)
        if isinstance(document, dict) and document.get("schema") == FIRST_SCHEMA:
            return Manifest.model_validate(_translated(document))
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise ObjectCorruptError(
            f"{where}: is not a manifest: {'.'.join(map(str, first['loc']))}: {first['msg']}."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ObjectCorruptError(f"{where}: is not a manifest: {error}.") from error
    if manifest.content != content_digest(manifest.outputs):
        raise ObjectCorruptError(
            f"{where}: states another content than its outputs have: expected "
            f"{content_digest(manifest.outputs)}, got {manifest.content}. Run the partition again."
        )
    return manifest


def _translated(document: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest of the first version in today's form: its inputs name manifests, not the objects that were read."""
    inputs = [
        {"asset": entry["asset"], "partition": entry["partition"], "manifest": entry["digest"], "outputs": []}
        for entry in document["inputs"]
    ]
    for entry in inputs:
        if document["asset"] == entry["asset"] == "dataset_release":
            entry["role"] = "parent"
    outputs = [Output.model_validate(entry) for entry in document["outputs"]]
    return {**document, "inputs": inputs, "content": content_digest(outputs)}
