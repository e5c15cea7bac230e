"""One record of the registry: its form, and the keys that records are kept under."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mm_assets.identity.canonical import canonical_json
from mm_assets.store.manifest import DIGEST_PATTERN

State = Literal["candidate", "production"]
STATES: tuple[State, State] = ("candidate", "production")
#: The output of a model that a decision compares.
WEIGHTS = "weights.safetensors"
#: A record of ``mm.production/1``: its place in the history is not written in it.
UNNUMBERED = 0


class RegistryRecord(BaseModel):
    """``mm.production/2``: ``model``, ``dataset_release`` and ``decision`` are manifest digests.

    ``sequence`` counts the records of a state from 1; ``previous`` is the digest of the record before this one, or
    None for the first. A record of ``mm.production/1`` has no ``sequence`` in its bytes and ``UNNUMBERED`` here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_: Literal["mm.production/1", "mm.production/2"] = Field(alias="schema")
    sequence: int = Field(ge=UNNUMBERED)
    state: State
    release: str
    model: str = Field(pattern=DIGEST_PATTERN)
    dataset_release: str = Field(pattern=DIGEST_PATTERN)
    decision: str = Field(pattern=DIGEST_PATTERN)
    previous: str | None = Field(pattern=DIGEST_PATTERN)

    @model_validator(mode="before")
    @classmethod
    def _of_first_version(cls, content: object) -> object:
        if isinstance(content, dict) and content.get("schema") == "mm.production/1" and "sequence" not in content:
            return {**content, "sequence": UNNUMBERED}
        return content

    @model_validator(mode="after")
    def _is_numbered(self) -> "RegistryRecord":
        if (self.schema_ == "mm.production/1") != (self.sequence == UNNUMBERED):
            raise ValueError(f"sequence {self.sequence} does not fit {self.schema_}")
        if self.sequence != UNNUMBERED and (self.sequence == 1) != (self.previous is None):
            raise ValueError(f"record {self.sequence} has previous {self.previous}")
        return self

    def encode(self) -> bytes:
        """Canonical bytes; their digest is what the next record calls ``previous``."""
        omitted = {"sequence"} if self.sequence == UNNUMBERED else set[str]()
        return canonical_json(self.model_dump(by_alias=True, exclude=omitted))


def is_same_move(known: RegistryRecord, new: RegistryRecord) -> bool:
    """Whether two records put the same model of the same release into the same state, by whatever decision."""
    return (known.state, known.release, known.model, known.dataset_release) == (
        new.state,
        new.release,
        new.model,
        new.dataset_release,
    )


def registry_key(state: State) -> str:
    """``refs/registry/<state>.json``."""
    return f"refs/registry/{state}.json"


def entry_key(state: State, number: int) -> str:
    """``registry/<state>/<number, 8 digits>.json``."""
    return f"registry/{state}/{number:08d}.json"


def first_key(state: State, release: str) -> str:
    """``registered/<state>/<release>.json``: the number of the release's first record."""
    return f"registered/{state}/{release}.json"
