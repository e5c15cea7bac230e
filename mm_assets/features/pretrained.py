"""Encoders with weights from elsewhere as the store keeps them: a document that names the files by digest."""

from dataclasses import fields
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mm_assets.errors import ObjectCorruptError, SpecError
from mm_assets.features.config import EncoderConfig, FeaturesConfig
from mm_assets.features.pretrained_types import FILES
from mm_assets.identity.canonical import canonical_json
from mm_assets.modalities.table import NAMES
from mm_assets.store.manifest import DIGEST_PATTERN
from mm_assets.store.objects import Store


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class EncoderFile(_Record):
    """One file of an encoder."""

    name: str
    digest: str = Field(pattern=DIGEST_PATTERN)
    size_bytes: int

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        """It becomes the name of a file in the folder of a worker."""
        if name not in FILES:
            raise ValueError(f"{name!r} is not a file of an encoder")
        return name


class PretrainedEncoder(_Record):
    """``mm.encoder/1``: an encoder as it is kept, and what a release pins of it by digest.

    Attributes:
        model_type: One of ``MODEL_TYPES``.
        dim: Length of an embedding.
        modalities: What it embeds.
        expects: What features must have been made with, by the names of ``FeaturesConfig``.
        files: Its files, by name.
    """

    schema_: Literal["mm.encoder/1"] = Field(alias="schema")
    model_type: str
    dim: int = Field(ge=1)
    modalities: list[str]
    expects: dict[str, int]
    files: list[EncoderFile]

    @field_validator("modalities")
    @classmethod
    def _are_modalities(cls, names: list[str]) -> list[str]:
        if not set(names) <= set(NAMES):
            raise ValueError(f"{names} are not modalities")
        return names

    @field_validator("expects")
    @classmethod
    def _are_features(cls, expects: dict[str, int]) -> dict[str, int]:
        if not set(expects) <= {field.name for field in fields(FeaturesConfig)}:
            raise ValueError(f"{sorted(expects)} are not fields of a configuration's features")
        return expects

    def encode(self) -> bytes:
        """Canonical bytes."""
        return canonical_json(self.model_dump(by_alias=True))

    def require_fit(self, name: str, encoder: EncoderConfig, features: FeaturesConfig) -> None:
        """Refuses a configuration whose features or embeddings have another form.

        Raises:
            SpecError: always the first difference.
        """
        actual = {"encoder.dim": encoder.dim, **{f"features.{key}": getattr(features, key) for key in self.expects}}
        expected = {"encoder.dim": self.dim, **{f"features.{key}": value for key, value in self.expects.items()}}
        for key, value in expected.items():
            if actual[key] != value:
                raise SpecError(
                    f"encoder {name}: does not fit the configuration: expected {key} {value}, got {actual[key]}. "
                    "Open the release with a configuration that has it."
                )


def read_encoder(store: Store, digest: str) -> PretrainedEncoder:
    """The document of an encoder.

    Raises:
        ObjectMissingError: it is not in the store. ObjectCorruptError: it is something else.
    """
    return parse_encoder(store.get_bytes(digest), digest)


def parse_encoder(data: bytes, where: str) -> PretrainedEncoder:
    """The document in ``data``.

    Raises:
        ObjectCorruptError: it is something else.
    """
    try:
        return PretrainedEncoder.model_validate_json(data)
    except ValidationError as error:
        raise ObjectCorruptError(
            f"encoder {where}: is not the document of an encoder. Add the encoder again."
        ) from error
