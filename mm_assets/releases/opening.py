"""Opening a release: reads its drops once, stores their descriptions as objects and pins everything by digest."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from mm_assets.drops.record import DROP_FILE, NAME_PATTERN, NAME_RULE, drop_key, parse_drop, source_key
from mm_assets.drops.source import parse_source
from mm_assets.errors import CheckError, DropError, SpecError, UsageError
from mm_assets.releases.sizing import choose_num_shards
from mm_assets.releases.spec import SCHEMA, DropPin, ReleasePin, ReleaseSpec, spec_key, write_spec
from mm_assets.releases.terms import Delivery, deliveries_of, drops_of, judge_terms
from mm_assets.settings import MAX_SHARDS
from mm_assets.store.objects import Store


def open_release(
    store: Store,
    *,
    release: str,
    drops: Sequence[tuple[str, str]],
    policy: Mapping[str, str],
    rules: Mapping[str, str],
    configuration: Mapping[str, Any],
    encoder: Mapping[str, str],
    seed: int,
    num_shards: int | None = None,
    max_shards: int = MAX_SHARDS,
    parent: ReleasePin | None = None,
    data_of: ReleasePin | None = None,
    exclusions: Sequence[str] = (),
    use: str | None = None,
    evaluation_sets: Sequence[ReleasePin] = (),
) -> ReleaseSpec:
    """Opens ``release`` over ``drops`` (pairs of source and drop, in this order) or over another release. Idempotent.

    It has ``num_shards`` shards, or where that is None as many as the drops' size asks for, ``max_shards`` at most.

    Raises:
        UsageError: ``release`` is not a valid name.
        SpecError: no drop, a drop named twice or held by the parent, or a value that cannot be part of a spec.
        DropError: a drop has not arrived completely or is unusable.
        CheckError: a source does not allow it.
        CommitConflictError: the release is open with another spec.
    """
    if not re.fullmatch(NAME_PATTERN, release):
        raise UsageError(f"release {release}: is not a valid name: {NAME_RULE}. Choose another.")
    if data_of is None and (not drops or len(set(drops)) != len(drops)):
        listed = ", ".join("/".join(drop) for drop in drops) or "none"
        raise SpecError(f"release {release}: expected one or more drops, each once, got {listed}.")
    pins = [_pin(store, source, drop) for source, drop in drops]
    records = [parse_drop(store.get_bytes(pin.digest), pin.digest) for pin in pins]
    content = {
        "schema": SCHEMA,
        "release": release,
        "drops": [pin.model_dump() for pin in pins],
        "parent": parent.model_dump() if parent else None,
        "data_of": data_of.model_dump() if data_of else None,
        "exclusions": sorted(set(exclusions)),
        "policy": dict(policy),
        "rules": dict(rules),
        "encoder": dict(encoder),
        "seed": seed,
        "num_shards": 0 if data_of else num_shards or choose_num_shards(records, cap=max_shards),
        "configuration": dict(configuration),
        "use": use,
        "evaluation_sets": [pin.model_dump() for pin in evaluation_sets],
    }
    spec = _validated(content, release)
    is_new = store.read_key(spec_key(release)) is None
    if is_new and parent is not None:
        _require_new_drops(store, release, drops, parent)
    require_allowed(store, release, deliveries_of(store, spec.drops), use, is_opening=is_new)
    return write_spec(store, spec)


def _validated(content: Mapping[str, Any], release: str) -> ReleaseSpec:
    try:
        return ReleaseSpec.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise SpecError(
            f"release {release}: {'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}."
        ) from error


def require_terms(store: Store, spec: ReleaseSpec) -> tuple[str, ...]:
    """Refuses a release whose sources do not allow it today; returns what their owners have not declared.

    Raises:
        CheckError: a source is revoked, its consent is withdrawn, its retention is over, or it is for other uses.
    """
    deliveries = deliveries_of(store, spec.drops, spec.parent, spec.data_of)
    return require_allowed(store, spec.release, deliveries, spec.use)


def require_allowed(
    store: Store, release: str, deliveries: Sequence[Delivery], use: str | None, *, is_opening: bool = False
) -> tuple[str, ...]:
    """``require_terms`` of a release that is not open yet, by the drops it would read.

    Raises:
        CheckError: as ``require_terms``.
    """
    terms = judge_terms(store, deliveries, use=use, today=datetime.now(UTC).date(), is_opening=is_opening)
    if terms.refused:
        raise CheckError(
            f"release {release}: {'; '.join(terms.refused)}. Leave these sources out, or ask their owners."
        )
    return terms.undeclared


def _require_new_drops(store: Store, release: str, drops: Sequence[tuple[str, str]], parent: ReleasePin) -> None:
    """Refuses a drop that the parent, or a release before it, has already."""
    known = set(drops_of(store, parent))
    repeated = [drop for drop in drops if drop in known]
    if repeated:
        raise SpecError(
            f"release {release}: drop {', '.join('/'.join(drop) for drop in repeated)} is in its parent "
            f"{parent.release} already: expected drops that are not. Leave it out."
        )


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
