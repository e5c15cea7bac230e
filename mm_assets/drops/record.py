"""``drop.json``: what a drop consists of, as it is stored beside the raw objects and pinned by a release.

Round trip: ``parse_drop(drop.encode(), where) == drop``. Object keys are relative to ``raw/<source>/<drop>/``; an
object that was registered where it lies has a URI instead. Fields that say nothing are left out.
"""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mm_assets.drops.columns import URI_SCHEME
from mm_assets.errors import DropError
from mm_assets.identity.canonical import canonical_json

#: Names of sources, drops and releases.
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"
NAME_RULE = "expected 1 to 63 lower-case letters, digits, '.', '_' and '-', the first a letter or digit"
DROP_FILE = "drop.json"
SOURCE_FILE = "source.yaml"
INDEX_FILES = ("index.jsonl", "index.parquet", "index.csv", "index.tsv")
#: What Hugging Face calls the index of an imagefolder or audiofolder.
METADATA_FILES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
INDEX_SUFFIXES = (".jsonl", ".parquet", ".csv", ".tsv")
URI_PATTERN = r"^s3://[^/]+/.+$"
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
#: Files of a drop's folder that describe it and are not objects of it.
DESCRIPTIVE_FILES = frozenset({DROP_FILE, SOURCE_FILE})


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DropObject(_Record):
    """One raw file: its key within the drop or its URI, its size and the hex SHA-256 of its bytes.

    ``version_id`` is the version at the URI, where its bucket keeps versions.
    """

    key: str | None = None
    uri: str | None = Field(default=None, pattern=URI_PATTERN)
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    version_id: str | None = None

    @model_validator(mode="after")
    def _is_in_one_place(self) -> "DropObject":
        if (self.key is None) == (self.uri is None):
            raise ValueError("expected either a key or a uri")
        if self.key is not None and (not is_safe_path(self.key) or self.key in DESCRIPTIVE_FILES):
            raise ValueError(f"{self.key!r} is not a file inside the drop")
        return self

    @property
    def name(self) -> str:
        """Its key or its URI."""
        return self.uri or self.key or ""

    @property
    def digest(self) -> str:
        """``sha256:<hex>``."""
        return f"sha256:{self.sha256}"


class Drop(_Record):
    """``mm.drop/1``; see DESIGN section 4. ``captured_from`` and ``captured_to`` are ISO 8601 times or null.

    ``columns`` says which column of the index is read as which (``drops/columns.py``), ``index_file`` the name of an
    index that is not one of ``INDEX_FILES``, ``media_folder`` where, beside the index, the files it names are.
    """

    schema_: Literal["mm.drop/1"] = Field(alias="schema")
    source: str = Field(pattern=NAME_PATTERN)
    drop: str = Field(pattern=NAME_PATTERN)
    captured_from: str | None
    captured_to: str | None
    format: Literal["webdataset", "index"]
    objects: list[DropObject]
    annotation: dict[str, Any]
    columns: dict[str, str | None] = Field(default_factory=dict)
    index_file: str | None = None
    media_folder: str | None = None

    @field_validator("captured_from", "captured_to")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        if value is not None:
            datetime.fromisoformat(value)
        return value

    @model_validator(mode="after")
    def _objects_fit_the_format(self) -> "Drop":
        names = [entry.name for entry in self.objects]
        if len(set(names)) != len(names):
            raise ValueError("objects: a key is given twice")
        indexes = [name for name in names if self._is_index(name)]
        if self.format == "index" and len(indexes) != 1:
            expected = self.index_file or f"one of {', '.join(INDEX_FILES)}"
            raise ValueError(f"objects: expected {expected}, got {len(indexes)}")
        return self

    def _is_index(self, name: str) -> bool:
        return name == self.index_file if self.index_file else name in INDEX_FILES

    def encode(self) -> bytes:
        """Canonical bytes, with the objects sorted by name."""
        content = self.model_dump(by_alias=True)
        optional = ("columns", "index_file", "media_folder")
        content = {name: value for name, value in content.items() if value or name not in optional}
        content["objects"] = [
            entry.model_dump(exclude_none=True) for entry in sorted(self.objects, key=lambda entry: entry.name)
        ]
        return canonical_json(content)

    def place(self, name: str) -> str:
        """Where an object is: its URI, or its key in the store."""
        return name if name.startswith(URI_SCHEME) else self.prefix + name

    def file_name(self, value: str) -> str:
        """The object that a cell of the index names: a URI, or a file beside the index."""
        if value.startswith(URI_SCHEME):
            return value
        folder = self.index.name.rpartition("/")[0]
        return "/".join(part for part in (folder, self.media_folder, value.removeprefix("./")) if part)

    @property
    def prefix(self) -> str:
        """``raw/<source>/<drop>/``."""
        return drop_prefix(self.source, self.drop)

    @property
    def index(self) -> DropObject:
        """The index of a drop of format ``index``."""
        return next(entry for entry in self.objects if self._is_index(entry.name))

    @property
    def tars(self) -> list[DropObject]:
        """The tars of a drop of format ``webdataset``, by key."""
        return sorted((entry for entry in self.objects if is_tar(entry.name)), key=lambda entry: entry.name)


def parse_drop(data: bytes, where: str) -> Drop:
    """The drop described by ``data``.

    Raises:
        DropError: it is not a valid ``mm.drop/1``; the message names ``where`` and the field.
    """
    with validated(where, "Write it with `mm drop create`"):
        return Drop.model_validate_json(data)


@contextmanager
def validated(where: str, remedy: str) -> Generator[None]:
    """Turns what a record refuses into a ``DropError`` that names ``where`` and the field, and ends in ``remedy``."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "document"
        said = first["msg"].removeprefix("Value error, ")
        got = f", got {str(first['input'])[:80]!r}" if isinstance(first["input"], str | int | float) else ""
        raise DropError(f"{where}: {field}: {said}{got}. {remedy}.") from error


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
