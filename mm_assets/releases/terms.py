"""Terms of sources: which of them a release may use, by what their owners declared.

Refused by name is a source whose approval is revoked, whose consent is withdrawn, whose retention is over, or whose
allowed uses do not hold the use that the release declares. Where an owner declares uses, a release must declare one;
a source that is for ``any`` use asks for none. What an owner has not declared is allowed, and said.
"""

import calendar
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from mm_assets.drops.record import parse_drop, source_key
from mm_assets.drops.source import UNDECLARED, Source, parse_source
from mm_assets.releases.spec import DropPin, ReleasePin
from mm_assets.store.manifest import Manifest, read_manifest
from mm_assets.store.objects import Store

#: What an owner who allows every use declares.
ANY_USE = "any"
_DURATION = re.compile(r"P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """Clauses that refuse sources, and clauses that say what nobody declared; each begins with the source."""

    refused: tuple[str, ...]
    undeclared: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """What is judged of a drop: the description of its source as a release pinned it, and the day it was captured."""

    source: Source
    captured: date | None


def judge_terms(
    store: Store, deliveries: Sequence[Delivery], *, use: str | None, today: date, is_opening: bool = False
) -> Terms:
    """Judges every source, by the description that is pinned and by the store's present one.

    An approval can be revoked after a release opened.

    Args:
        store: Where the present descriptions are.
        deliveries: Of the drops.
        use: What the release is for; None if it does not say.
        today: The day that retention is compared with.
        is_opening: Whether the release is being opened. One that is open without a use is refused only where the owner
            declared uses since: those who opened it earlier were not asked.
    """
    refused: dict[str, None] = {}
    undeclared: dict[str, None] = {}
    present = {name: _present(store, name) for name in dict.fromkeys(entry.source.source for entry in deliveries)}
    for entry in deliveries:
        was_asked = is_opening or entry.source.allowed_uses == [UNDECLARED]
        for source in (entry.source, present[entry.source.source]):
            if source is not None:
                ends = _ends(source.retention, entry.captured)
                refused |= dict.fromkeys(_refusals(source, use, ends, today))
                refused |= dict.fromkeys(_missing_use(source) if use is None and was_asked else ())
                undeclared |= dict.fromkeys(_undeclared(source, use, entry.captured))
    return Terms(refused=tuple(refused), undeclared=tuple(undeclared))


def deliveries_of(store: Store, drops: Sequence[DropPin], *built_on: ReleasePin | None) -> list[Delivery]:
    """Deliveries of a release's own drops, and of all drops of the releases it is built on.

    A frozen release's record describes every drop of its line: however long that is, one record is read.
    """
    own = [
        Delivery(
            source=parse_source(store.get_bytes(pin.source_digest), pin.source_digest), captured=_captured(store, pin)
        )
        for pin in drops
    ]
    return [*own, *(entry for pin in built_on if pin is not None for entry in _of_line(store, pin))]


def drops_of(store: Store, pin: ReleasePin) -> list[tuple[str, str]]:
    """Source and name of every drop of a frozen release's line."""
    return [(drop["source"], drop["drop"]) for drop in _record(store, read_manifest(store, pin.digest))["drops"]]


def _of_line(store: Store, pin: ReleasePin) -> Iterator[Delivery]:
    return recorded_deliveries(store, read_manifest(store, pin.digest))


def _record(store: Store, manifest: Manifest) -> Any:
    found = [output.digest for output in manifest.outputs if output.name == "record.json"]
    # What is no frozen release has no record; it is refused where its manifest is taken as an input.
    return json.loads(store.get_bytes(found[0])) if found else {"sources": [], "drops": []}


def recorded_deliveries(store: Store, manifest: Manifest) -> Iterator[Delivery]:
    """Every drop of a frozen release's line, by its record.

    Of a record that does not say which description is which drop's, every description of its source.
    """
    record = _record(store, manifest)
    described: dict[str, dict[str, Source]] = {}
    for entry in record["sources"]:
        content = {name: value for name, value in entry.items() if name != "digest"}
        source = parse_source(
            json.dumps(content).encode(), f"record of {manifest.partition.release}, source {entry['source']}"
        )
        described.setdefault(source.source, {})[entry["digest"]] = source
    for drop in record["drops"]:
        known = described[drop["source"]]
        for source in [known[drop["source_digest"]]] if "source_digest" in drop else known.values():
            yield Delivery(source=source, captured=_day(drop.get("captured_to") or drop.get("captured_from")))


def _present(store: Store, name: str) -> Source | None:
    current = store.read_key(source_key(name))
    return None if current is None else parse_source(current.data, store.uri(source_key(name)))


def _refusals(source: Source, use: str | None, ends: date | None, today: date) -> Iterator[str]:
    where = f"source {source.source}"
    if source.approval.status == "revoked":
        yield f"{where}: its approval was revoked by {source.approval.by}"
    if source.consent == "withdrawn":
        yield f"{where}: consent is withdrawn"
    if use is not None and _limits_uses(source) and use not in source.allowed_uses:
        yield f"{where}: its allowed uses are {_uses(source)}, and {use} is not among them"
    if ends is not None and ends < today:
        yield f"{where}: its retention ({source.retention}) was over on {ends}"


def _missing_use(source: Source) -> Iterator[str]:
    if _limits_uses(source):
        yield (
            f"source {source.source}: its allowed uses are {_uses(source)}, and the release declares none: declare one "
            "with --use, or as use in new_drops.yaml"
        )


def _limits_uses(source: Source) -> bool:
    return source.allowed_uses != [UNDECLARED] and ANY_USE not in source.allowed_uses


def _uses(source: Source) -> str:
    return ", ".join(source.allowed_uses) or "none"


def _undeclared(source: Source, use: str | None, captured: date | None) -> Iterator[str]:
    where = f"source {source.source}"
    if source.approval.status == "pending":
        yield f"{where}: its approval is pending"
    if source.allowed_uses == [UNDECLARED]:
        yield f"{where}: its allowed uses are not declared"
    elif use is None and _limits_uses(source):
        yield f"{where}: its allowed uses are {_uses(source)}, and the release declares none"
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
    return _day(drop.captured_to or drop.captured_from)


def _day(captured: str | None) -> date | None:
    return None if captured is None else datetime.fromisoformat(captured).date()


def _ends(retention: str, captured: date | None) -> date | None:
    """The last day of a retention given as an ISO date or duration; None for any other text, which sets no end.

    A month from the 31st on ends on the last day of a shorter month.
    """
    try:
        return date.fromisoformat(retention)
    except ValueError:
        found = _DURATION.fullmatch(retention)
    if found is None or captured is None or not any(found.groups()):
        return None
    try:
        years, months, weeks, days = (int(number or 0) for number in found.groups())
        year, month = (
            captured.year + years + (captured.month - 1 + months) // 12,
            (captured.month - 1 + months) % 12 + 1,
        )
        day = min(captured.day, calendar.monthrange(year, month)[1])
        return date(year, month, day) + timedelta(days=days + 7 * weeks)
    except (ValueError, OverflowError):
        # Beyond what a date can say: it does not end.
        return date.max
