"""The release spec: what a release is made from, pinned by digest when it is opened and never changed.

Nothing in the pipeline resolves "latest" after this file was written.
"""

import functools
import json
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from mm_assets.drops.record import NAME_PATTERN
from mm_assets.errors import CommitConflictError, ObjectCorruptError, SpecError, UnknownReleaseError
from mm_assets.identity.canonical import canonical_json, digest_bytes
from mm_assets.store.manifest import DIGEST_PATTERN
from mm_assets.store.objects import Store

T = TypeVar("T")
SCHEMA = "mm.release/2"
FIRST_SCHEMA = "mm.release/1"
#: Fields that specs of this schema did not have from the beginning.
_LATER = ("use", "evaluation_sets")
#: Where the first version kept what is placement today: section and field there, field of section ``placement`` here.
_MOVED = (
    ("training", "log_every", "log_every"),
    ("training", "experiment_class", "experiment_class"),
    ("training", "budget_usd", "budget_usd"),
    ("encoder", "microbatch_size", "microbatch_size"),
)
#: Fields of the first version that nothing reads any more: section and name.
_GONE = (("release", "max_near_duplicates"),)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DropPin(_Record):
    """A drop pinned by the digests of its ``drop.json`` and its source's ``source.yaml`` (both stored as objects)."""

    source: str = Field(pattern=NAME_PATTERN)
    drop: str = Field(pattern=NAME_PATTERN)
    digest: str = Field(pattern=DIGEST_PATTERN)
    source_digest: str = Field(pattern=DIGEST_PATTERN)


class ReleasePin(_Record):
    """Another release, pinned by its ``dataset_release`` manifest."""

    release: str = Field(pattern=NAME_PATTERN)
    digest: str = Field(pattern=DIGEST_PATTERN)


class ReleaseSpec(_Record):
    """``mm.release/2``, stored at ``releases/<release>/spec.json``.

    Attributes:
        parent: The release whose shards this one adds to, or None.
        data_of: The release whose data an experiment uses; it then has no drops and no shards of its own.
        policy: ``{name, file, digest}`` of a policy file, with ``version`` where it is the store's own.
        rules: Digest of every rules file by name; empty for a release that the first version opened.
        encoder: ``{kind, digest}``.
        num_shards: Shards of its own, fixed here whatever later environments say; 0 for an experiment.
        configuration: A whole ``configurations.PipelineConfig`` as JSON, and its name.
        use: What the release is for, which its sources must allow; None if it does not say.
        evaluation_sets: Releases whose test splits never train in this one.
    """

    schema_: Literal["mm.release/2"] = Field(alias="schema")
    release: str = Field(pattern=NAME_PATTERN)
    drops: list[DropPin]
    parent: ReleasePin | None
    data_of: ReleasePin | None
    exclusions: list[str]
    policy: dict[str, str]
    rules: dict[str, str]
    encoder: dict[str, str]
    seed: int
    num_shards: int = Field(ge=0)
    configuration: dict[str, Any]
    use: str | None = None
    evaluation_sets: list[ReleasePin] = []

    @model_validator(mode="after")
    def _has_data(self) -> "ReleaseSpec":
        if self.data_of is not None and (self.drops or self.parent or self.num_shards):
            raise ValueError("data_of: an experiment has no drops, no parent and no shards of its own")
        if self.data_of is None and not (self.drops and self.num_shards):
            raise ValueError("drops: expected one or more drops and one or more shards, or data_of")
        return self

    def config(self, section: str, kind: type[T]) -> T:
        """One section of the configuration as its class.

        Raises:
            SpecError: the section is missing or does not fit the class.
        """
        try:
            return _adapter(kind).validate_python(self.configuration[section])
        except (KeyError, ValidationError) as error:
            raise SpecError(
                f"release {self.release}: configuration section {section} is unusable: {error}. "
                "Open a release with a configuration of this version."
            ) from error

    def shards(self) -> list[str]:
        """Shard keys of this release, ``num_shards`` of them."""
        return [shard_key(index) for index in range(self.num_shards)]

    def has_shard(self, shard: str | None) -> bool:
        """Whether this release has a shard of that key."""
        if shard is None or not shard.isdecimal():
            return False
        return int(shard) < self.num_shards and shard == shard_key(int(shard))

    def encode(self) -> bytes:
        """Canonical bytes; what a release does not say is left out, as in specs that are older than the field."""
        content = self.model_dump(by_alias=True)
        return canonical_json({name: value for name, value in content.items() if name not in _LATER or value})

    @property
    def digest(self) -> str:
        """Digest of ``encode()``."""
        return digest_bytes(self.encode())


@functools.cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """Building an adapter costs a hundred times what using it does, and every shard of a release asks for the same."""
    return TypeAdapter(kind)


def shard_key(index: int) -> str:
    """The partition key of shard ``index``: four digits, and five from 10000 on, so that no key changes with a cap."""
    return f"{index:04d}"


def spec_key(release: str) -> str:
    """``releases/<release>/spec.json``."""
    return f"releases/{release}/spec.json"


def write_spec(store: Store, spec: ReleaseSpec) -> ReleaseSpec:
    """Writes the spec of a release once and returns the spec that is stored. Idempotent.

    Raises:
        CommitConflictError: the release is open with another spec; the message names the fields that differ.
    """
    if store.create_key(spec_key(spec.release), spec.encode()):
        return spec
    known = read_spec(store, spec.release)
    asked = spec if known.rules else _as_first_version(spec, known)
    different = _differences(known.model_dump(by_alias=True), asked.model_dump(by_alias=True))
    if different:
        raise CommitConflictError(
            f"release {spec.release}: is open already with another spec: {'; '.join(different)}. "
            "Open a release with another name."
        )
    return known


def read_spec(store: Store, release: str) -> ReleaseSpec:
    """The spec of an open release; one of the first version is translated.

    Raises:
        UnknownReleaseError: there is no such release. ObjectCorruptError: the key holds something else.
    """
    current = store.read_key(spec_key(release))
    if current is None:
        raise UnknownReleaseError(f"release {release}: is not open. List the open ones with `mm release list`.")
    return parse_spec(current.data, store.uri(spec_key(release)), release)


def parse_spec(data: bytes, where: str, release: str) -> ReleaseSpec:
    """The spec of ``release`` in ``data``; one of the first version is translated.

    Raises:
        ObjectCorruptError: it is something else; the message names ``where``.
    """
    try:
        document = json.loads(data)
        # Half of a surrogate pair is valid JSON that nothing could be written from.
        canonical_json(document)
        if isinstance(document, dict) and document.get("schema") == FIRST_SCHEMA:
            document = _translated(document)
        spec = ReleaseSpec.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise ObjectCorruptError(f"{where}: is not a release spec: {field}: {first['msg']}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ObjectCorruptError(f"{where}: is not a release spec: {error}.") from error
    if spec.release != release:
        raise ObjectCorruptError(f"{where}: is the spec of another release: expected {release}, got {spec.release}.")
    return spec


def list_releases(store: Store) -> list[str]:
    """Names of all open releases, sorted."""
    return sorted(name for name in store.list_folders("releases/"))


def _as_first_version(spec: ReleaseSpec, known: ReleaseSpec) -> ReleaseSpec:
    """What is asked for, without what the first version did not pin: rules, and a placement in today's form."""
    placement = {"placement": known.configuration.get("placement")}
    return spec.model_copy(update={"rules": {}, "configuration": {**spec.configuration, **placement}})


def _differences(known: object, asked: object, place: str = "") -> list[str]:
    """Every leaf in which two documents differ, as a clause each; the first few are enough to act on."""
    if isinstance(known, Mapping) and isinstance(asked, Mapping):
        return [
            clause
            for name in sorted({*known, *asked})
            for clause in _differences(known.get(name), asked.get(name), f"{place}.{name}" if place else str(name))
        ][:5]
    return [] if known == asked else [f"{place}: expected {_shown(known)}, got {_shown(asked)}"]


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def _translated(document: Mapping[str, Any]) -> dict[str, Any]:
    """A spec of the first version in today's form."""
    configuration = {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in document["recipe"].items()
    }
    placement: dict[str, Any] = {}
    for section, field, name in _MOVED:
        if isinstance(configuration.get(section), dict) and field in configuration[section]:
            placement[name] = configuration[section].pop(field)
    for section, field in _GONE:
        if isinstance(configuration.get(section), dict):
            configuration[section].pop(field, None)
    fields = {name: value for name, value in document.items() if name != "recipe"}
    return {
        **fields,
        "schema": SCHEMA,
        "data_of": None,
        "rules": {},
        "configuration": {**configuration, "placement": placement},
    }
