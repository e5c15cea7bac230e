"""The release spec: what a release is made from, pinned by digest when it is opened and never changed.

Nothing in the pipeline resolves "latest" after this file was written.
"""

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from mm_assets.drops.record import NAME_PATTERN
from mm_assets.errors import CommitConflictError, ObjectCorruptError, ObjectMissingError, SpecError
from mm_assets.identity.canonical import canonical_json, digest_bytes
from mm_assets.store.manifest import DIGEST_PATTERN
from mm_assets.store.objects import Store

T = TypeVar("T")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DropPin(_Record):
    """A drop pinned by the digests of its ``drop.json`` and its source's ``source.yaml`` (both stored as objects)."""

    source: str = Field(pattern=NAME_PATTERN)
    drop: str = Field(pattern=NAME_PATTERN)
    digest: str = Field(pattern=DIGEST_PATTERN)
    source_digest: str = Field(pattern=DIGEST_PATTERN)


class ParentPin(_Record):
    """The release this one adds to, pinned by its ``dataset_release`` manifest."""

    release: str = Field(pattern=NAME_PATTERN)
    digest: str = Field(pattern=DIGEST_PATTERN)


class ReleaseSpec(_Record):
    """``mm.release/1``, stored at ``releases/<release>/spec.json``.

    ``policy`` is ``{name, sql}`` (a curation rule over signals), ``encoder`` is ``{kind, digest}``, ``recipe`` is a
    whole ``recipes.PipelineConfig`` as JSON. ``num_shards`` is fixed here, whatever later environments say.
    """

    schema_: Literal["mm.release/1"] = Field(alias="schema")
    release: str = Field(pattern=NAME_PATTERN)
    drops: list[DropPin]
    parent: ParentPin | None
    exclusions: list[str]
    policy: dict[str, str]
    encoder: dict[str, str]
    seed: int
    num_shards: int
    recipe: dict[str, Any]

    def config(self, section: str, kind: type[T]) -> T:
        """One section of the recipe as its configuration class.

        Raises:
            SpecError: the section is missing or does not fit the class.
        """
        try:
            return TypeAdapter(kind).validate_python(self.recipe[section])
        except (KeyError, ValidationError) as error:
            raise SpecError(f"release {self.release}: recipe section {section} is unusable: {error}.") from error

    def shards(self) -> list[str]:
        """Shard keys of this release: zero-padded to four digits, ``num_shards`` of them."""
        return [shard_key(index) for index in range(self.num_shards)]


def shard_key(index: int) -> str:
    """The partition key of shard ``index``."""
    return f"{index:04d}"


def spec_key(release: str) -> str:
    """``releases/<release>/spec.json``."""
    return f"releases/{release}/spec.json"


def write_spec(store: Store, spec: ReleaseSpec) -> str:
    """Opens the release: writes its spec once and returns the spec's digest. Opening it again alike is no error.

    Raises:
        CommitConflictError: the release exists with another spec.
    """
    data = canonical_json(spec.model_dump(by_alias=True))
    if not store.create_key(spec_key(spec.release), data):
        raise CommitConflictError(
            f"release {spec.release}: exists already with another spec. Open a release with another name."
        )
    return digest_bytes(data)


def read_spec(store: Store, release: str) -> ReleaseSpec:
    """The spec of an open release.

    Raises:
        ObjectMissingError: there is no such release. ObjectCorruptError: the key holds something else.
    """
    current = store.read_key(spec_key(release))
    if current is None:
        raise ObjectMissingError(f"release {release}: is not open. List the open ones with `mm release list`.")
    try:
        return ReleaseSpec.model_validate_json(current.data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise ObjectCorruptError(
            f"{store.uri(spec_key(release))}: is not a release spec: {field}: {first['msg']}."
        ) from error


def list_releases(store: Store) -> list[str]:
    """Names of all open releases, sorted."""
    return sorted(name for name in store.list_folders("releases/"))
