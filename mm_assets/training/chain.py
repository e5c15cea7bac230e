"""The record of a checkpoint and the chain the records of a run form. Torch-free."""

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from mm_assets.identity.canonical import canonical_json, digest_bytes
from mm_assets.store.manifest import DIGEST_PATTERN


class CheckpointRecord(BaseModel):
    """``mm.checkpoint/2``.

    ``run`` is the fingerprint of the training spec, ``previous`` the digest of the record before, ``weights`` that of
    the weights alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_: Literal["mm.checkpoint/2"] = Field(alias="schema")
    run: str = Field(pattern=DIGEST_PATTERN)
    step: int = Field(ge=1)
    state: str = Field(pattern=DIGEST_PATTERN)
    weights: str = Field(pattern=DIGEST_PATTERN)
    segment: str = Field(pattern=DIGEST_PATTERN)
    previous: str | None = Field(pattern=DIGEST_PATTERN)

    def encode(self) -> bytes:
        """Canonical bytes; the next record names their digest."""
        return canonical_json(self.model_dump(by_alias=True))

    @property
    def digest(self) -> str:
        """Digest of ``encode()``."""
        return digest_bytes(self.encode())


def step_name(step: int) -> str:
    """How files and keys of a checkpoint are called: steps done, zero-padded."""
    return f"{step:08d}"


def read_record(data: bytes) -> CheckpointRecord:
    """A record from its bytes.

    Raises:
        ValidationError: they are something else.
    """
    return CheckpointRecord.model_validate(json.loads(data))
