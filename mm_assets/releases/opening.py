"""Opening a release: reads its drops once, stores their descriptions as objects and pins everything by digest."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from mm_assets.checks.validations import require_passed
from mm_assets.drops.record import DROP_FILE, drop_key, parse_drop, source_key
from mm_assets.drops.source import parse_source
from mm_assets.errors import DropError, SpecError
from mm_assets.releases.spec import DropPin, ParentPin, ReleaseSpec, write_spec
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import Store


def open_release(
    store: Store,
    *,
    release: str,
    drops: Sequence[tuple[str, str]],
    parent: str | None,
    policy: Mapping[str, str],
    recipe: Mapping[str, Any],
    encoder: Mapping[str, str],
    seed: int,
    num_shards: int,
    exclusions: Sequence[str] = (),
) -> ReleaseSpec:
    """Opens ``release`` over ``drops`` (pairs of source and drop, in this order). Opening it again alike is no error.

    Raises:
        SpecError: no drop, a drop named twice, or a value that cannot be part of a spec.
        DropError: a drop has not arrived completely or is unusable.
        GateError: the parent's dataset release did not pass its checks.
        CommitConflictError: the release exists with another spec.
    """
    if not drops or len(set(drops)) != len(drops):
        raise SpecError(f"release {release}: expected one or more drops, each once, got {list(drops)}.")
    content = {
        "schema": "mm.release/1",
        "release": release,
        "drops": [_pin(store, source, drop).model_dump() for source, drop in drops],
        "parent": _pin_parent(store, parent).model_dump() if parent else None,
        "exclusions": sorted(set(exclusions)),
        "policy": dict(policy),
        "encoder": dict(encoder),
        "seed": seed,
        "num_shards": num_shards,
        "recipe": dict(recipe),
    }
    try:
        spec = ReleaseSpec.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise SpecError(
            f"release {release}: {'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}."
        ) from error
    write_spec(store, spec)
    return spec


def _pin(store: Store, source: str, drop: str) -> DropPin:
    key = drop_key(source, drop)
    found = store.read_key(key)
    if found is None:
        raise DropError(
            f"drop {source}/{drop}: is not in the store: expected {store.uri(key)}. Deliver it with `mm drop push`."
        )
    record = parse_drop(found.data, store.uri(key))
    if (record.source, record.drop) != (source, drop):
        raise DropError(
            f"{store.uri(key)}: describes another drop: expected {source}/{drop}, got {record.source}/{record.drop}."
        )
    described = store.read_key(source_key(source))
    if described is None:
        raise DropError(
            f"source {source}: has no description: expected {store.uri(source_key(source))} beside {DROP_FILE}. "
            "Push the drop again from a folder with its source.yaml."
        )
    if parse_source(described.data, store.uri(source_key(source))).source != source:
        raise DropError(f"{store.uri(source_key(source))}: describes another source: expected {source}.")
    return DropPin(
        source=source,
        drop=drop,
        digest=store.put_bytes(found.data),
        source_digest=store.put_bytes(described.data),
    )


def _pin_parent(store: Store, parent: str) -> ParentPin:
    ref = require_passed(store, "dataset_release", Partition(release=parent))
    return ParentPin(release=parent, digest=ref.manifest)
