"""The manifest: what a partition is, as canonical JSON naming inputs and outputs by digest.

Invariant: no clock, host or run id, so one fingerprint has one manifest digest wherever it was computed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mm_assets.errors import ObjectCorruptError, ObjectMissingError
from mm_assets.identity.canonical import Json, canonical_json, digest_json
from mm_assets.store.objects import Store

DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"


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


class Input(_Record):
    """One input: a manifest of an upstream asset, or a pinned object such as a drop or an encoder."""

    asset: str
    partition: dict[str, str]
    digest: str = Field(pattern=DIGEST_PATTERN)


class Output(_Record):
    """One output object."""

    name: str
    digest: str = Field(pattern=DIGEST_PATTERN)
    size_bytes: int
    media_type: str
    num_rows: int | None = None


class Manifest(_Record):
    """``mm.manifest/1``; see DESIGN section 3. ``stats`` are small deterministic facts for tables and previews."""

    schema_: Literal["mm.manifest/1"] = Field(alias="schema")
    asset: str
    partition: Partition
    fingerprint: str = Field(pattern=DIGEST_PATTERN)
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

    def input(self, asset: str) -> Input:
        """The only input of that asset.

        Raises:
            ObjectMissingError: there is not exactly one.
        """
        found = [entry for entry in self.inputs if entry.asset == asset]
        if len(found) != 1:
            raise ObjectMissingError(
                f"{self.asset} {self.partition.path}: expected one input {asset}, got {len(found)}."
            )
        return found[0]

    def encode(self) -> bytes:
        """Canonical bytes; their digest is the partition's DataVersion."""
        return canonical_json(self.model_dump(by_alias=True, exclude_none=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that decides a partition's bytes, known before it is computed."""

    asset: str
    partition: Partition
    code: str
    params: Mapping[str, Json]
    environment: Mapping[str, Json]
    inputs: tuple[Input, ...]

    @property
    def fingerprint(self) -> str:
        """Digest of the recipe."""
        return digest_json(
            {
                "asset": self.asset,
                "partition": self.partition.model_dump(exclude_none=True),
                "code": self.code,
                "params": self.params,
                "environment": self.environment,
                "inputs": [entry.model_dump() for entry in self.inputs],
            }
        )

    def manifest(self, outputs: list[Output], stats: Mapping[str, Json]) -> Manifest:
        """The manifest of this recipe once it was computed; outputs are listed by name."""
        return Manifest(
            schema="mm.manifest/1",
            asset=self.asset,
            partition=self.partition,
            fingerprint=self.fingerprint,
            code=self.code,
            params=dict(self.params),
            environment=dict(self.environment),
            inputs=list(self.inputs),
            outputs=sorted(outputs, key=lambda output: output.name),
            stats=dict(stats),
        )


def read_manifest(store: Store, digest: str) -> Manifest:
    """The manifest named ``digest``, verified and validated.

    Raises:
        ObjectMissingError: there is no such object.
        ObjectCorruptError: its bytes have another digest or are no manifest.
    """
    data = store.get_bytes(digest)
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise ObjectCorruptError(
            f"{store.object_uri(digest)}: is not a manifest: {'.'.join(map(str, first['loc']))}: {first['msg']}."
        ) from error
