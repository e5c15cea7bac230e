"""``drop.json``: what a drop consists of, as it is stored beside the raw objects and pinned by a release.

Round trip: ``parse_drop(drop.encode(), where) == drop``. Object keys are relative to ``raw/<source>/<drop>/``.
"""

from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mm_assets.errors import DropError
from mm_assets.identity.canonical import canonical_json

#: Names of sources, drops and releases.
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"
NAME_RULE = "expected 1 to 63 lower-case letters, digits, '.', '_' and '-', the first a letter or digit"
DROP_FILE = "drop.json"
SOURCE_FILE = "source.yaml"
INDEX_FILES = ("index.jsonl", "index.parquet")
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
#: Files of a drop's folder that describe it and are not objects of it.
DESCRIPTIVE_FILES = frozenset({DROP_FILE, SOURCE_FILE})


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DropObject(_Record):
    """One raw file: its key within the drop, its size and the hex SHA-256 of its bytes."""

    key: str
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @field_validator("key")
    @classmethod
    def _key_stays_inside(cls, key: str) -> str:
        if not is_safe_path(key) or key in DESCRIPTIVE_FILES:
            raise ValueError(f"{key!r} is not a file inside the drop")
        return key

    @property
    def digest(self) -> str:
        """``sha256:<hex>``."""
        return f"sha256:{self.sha256}"


class Drop(_Record):
    """``mm.drop/1``; see DESIGN section 4. ``captured_from`` and ``captured_to`` are ISO 8601 times or null."""

    schema_: Literal["mm.drop/1"] = Field(alias="schema")
    source: str = Field(pattern=NAME_PATTERN)
    drop: str = Field(pattern=NAME_PATTERN)
    captured_from: str | None
    captured_to: str | None
    format: Literal["webdataset", "index"]
    objects: list[DropObject]
    annotation: dict[str, Any]

    @field_validator("captured_from", "captured_to")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        if value is not None:
            datetime.fromisoformat(value)
        return value

    @model_validator(mode="after")
    def _objects_fit_the_format(self) -> "Drop":
        keys = [entry.key for entry in self.objects]
        if len(set(keys)) != len(keys):
            raise ValueError("objects: a key is given twice")
        indexes = [key for key in keys if key in INDEX_FILES]
        if self.format == "index" and len(indexes) != 1:
            raise ValueError(f"objects: expected one of {' and '.join(INDEX_FILES)}, got {len(indexes)}")
        return self

    def encode(self) -> bytes:
        """Canonical bytes, with the objects sorted by key."""
        content = self.model_dump(by_alias=True)
        content["objects"] = sorted(content["objects"], key=lambda entry: entry["key"])
        return canonical_json(content)

    @property
    def prefix(self) -> str:
        """``raw/<source>/<drop>/``."""
        return drop_prefix(self.source, self.drop)

    @property
    def index(self) -> DropObject:
        """The index of a drop of format ``index``."""
        return next(entry for entry in self.objects if entry.key in INDEX_FILES)

    @property
    def tars(self) -> list[DropObject]:
        """The tars of a drop of format ``webdataset``, by key."""
        return sorted((entry for entry in self.objects if is_tar(entry.key)), key=lambda entry: entry.key)


def parse_drop(data: bytes, where: str) -> Drop:
    """The drop described by ``data``.

    Raises:
        DropError: it is not a valid ``mm.drop/1``; the message names ``where`` and the field.
    """
    try:
        return Drop.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "document"
        raise DropError(
            f"{where}: {field}: {first['msg']}, got {str(first['input'])[:80]!r}. Write it with `mm drop create`."
        ) from error


def drop_prefix(source: str, drop: str) -> str:
    """``raw/<source>/<drop>/``."""
    return f"raw/{source}/{drop}/"


def drop_key(source: str, drop: str) -> str:
    """Key of a drop's ``drop.json``."""
    return drop_prefix(source, drop) + DROP_FILE


def source_key(source: str) -> str:
    """Key of a source's ``source.yaml``."""
    return f"raw/{source}/{SOURCE_FILE}"


def is_tar(key: str) -> bool:
    """Whether an object is a tar, by its name."""
    return key.endswith(TAR_SUFFIXES)


def is_safe_path(name: str) -> bool:
    """Whether ``name`` is a relative path that stays where it starts, spelt in its shortest form."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and str(path) == name and "\0" not in name
