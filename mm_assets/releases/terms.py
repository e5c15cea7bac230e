"""Terms of sources: which of them a release may use, by what their owners declared.

Refused by name is a source whose approval is revoked, whose consent is withdrawn, whose retention is over, or whose
allowed uses do not hold the use that the release declares. What an owner has not declared is allowed, and said.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from mm_assets.drops.record import parse_drop, source_key
from mm_assets.drops.source import UNDECLARED, Source, parse_source
from mm_assets.releases.spec import DropPin, ReleasePin
from mm_assets.store.manifest import read_manifest
from mm_assets.store.objects import Store

_DURATION = re.compile(r"P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """Clauses that refuse sources, and clauses that say what nobody declared; each begins with the source."""

    refused: tuple[str, ...]
    undeclared: tuple[str, ...]


def judge_terms(store: Store, pins: Sequence[DropPin], *, use: str | None, today: date) -> Terms:
    """Judges every source of the pinned drops, by the description that is pinned and by the store's present one.

    Args:
        store: Where the descriptions are.
        pins: The drops.
        use: What the release is for; None if it does not say.
        today: The day that retention is compared with.
    """
    refused: dict[str, None] = {}
    undeclared: dict[str, None] = {}
    for pin in pins:
        for source in _descriptions(store, pin):
            captured = _captured(store, pin)
            refused |= dict.fromkeys(_refusals(source, use, _ends(source.retention, captured), today))
            undeclared |= dict.fromkeys(_undeclared(source, use, captured))
    return Terms(refused=tuple(refused), undeclared=tuple(undeclared))


def all_drops(store: Store, drops: Sequence[DropPin], *built_on: ReleasePin | None) -> list[DropPin]:
    """The drops of a release, and of every release it is built on as that was frozen."""
    found = list(drops)
    digests = [pin.digest for pin in built_on if pin is not None]
    while digests:
        manifest = read_manifest(store, digests.pop(0))
        sources = {entry.partition["source"]: entry.manifest for entry in manifest.inputs_of("source")}
        for entry in manifest.inputs_of("drop"):
            source, drop = entry.partition["source"], entry.partition["drop"]
            found.append(DropPin(source=source, drop=drop, digest=entry.manifest, source_digest=sources[source]))
        digests += [entry.manifest for entry in manifest.inputs_of("dataset_release", "parent")]
    return list(dict.fromkeys(found))


def _descriptions(store: Store, pin: DropPin) -> Iterator[Source]:
    """The pinned description, and the one that the store has now: an approval can be revoked after a release opened."""
    pinned = store.get_bytes(pin.source_digest)
    yield parse_source(pinned, pin.source_digest)
    current = store.read_key(source_key(pin.source))
    if current is not None and current.data != pinned:
        yield parse_source(current.data, store.uri(source_key(pin.source)))


def _refusals(source: Source, use: str | None, ends: date | None, today: date) -> Iterator[str]:
    where = f"source {source.source}"
    if source.approval.status == "revoked":
        yield f"{where}: its approval was revoked by {source.approval.by}"
    if source.consent == "withdrawn":
        yield f"{where}: consent is withdrawn"
    if use is not None and source.allowed_uses != [UNDECLARED] and use not in source.allowed_uses:
        yield f"{where}: its allowed uses are {', '.join(source.allowed_uses) or 'none'}, and {use} is not among them"
    if ends is not None and ends < today:
        yield f"{where}: its retention ({source.retention}) was over on {ends}"


def _undeclared(source: Source, use: str | None, captured: date | None) -> Iterator[str]:
    where = f"source {source.source}"
    if source.approval.status == "pending":
        yield f"{where}: its approval is pending"
    if source.allowed_uses == [UNDECLARED]:
        yield f"{where}: its allowed uses are not declared"
    elif use is None:
        yield f"{where}: its allowed uses are {', '.join(source.allowed_uses)}, and the release declares none"
    if source.consent == UNDECLARED:
        yield f"{where}: consent is not declared"
    if source.retention == UNDECLARED:
        yield f"{where}: its retention is not declared"
    elif _DURATION.fullmatch(source.retention) and captured is None:
        yield f"{where}: its retention ({source.retention}) cannot be judged: a drop of it has no captured_to"
    elif _ends(source.retention, captured) is None:
        yield f"{where}: its retention ({source.retention}) cannot be judged: it is no ISO date or duration"


def _captured(store: Store, pin: DropPin) -> date | None:
    """The day that a duration counts from."""
    drop = parse_drop(store.get_bytes(pin.digest), pin.digest)
    captured = drop.captured_to or drop.captured_from
    return None if captured is None else datetime.fromisoformat(captured).date()


def _ends(retention: str, captured: date | None) -> date | None:
    """The last day of a retention given as an ISO date or duration; None for any other text, which sets no end."""
    try:
        return date.fromisoformat(retention)
    except ValueError:
        found = _DURATION.fullmatch(retention)
    if found is None or captured is None or not any(found.groups()):
        return None
    years, months, weeks, days = (int(number or 0) for number in found.groups())
    month = captured.month - 1 + months
    first = date(captured.year + years + month // 12, month % 12 + 1, 1)
    return first + timedelta(days=captured.day - 1 + days + 7 * weeks)
