"""Whether the registry's history can be believed: the check of a registration, and every problem of the records."""

from collections.abc import Iterator
from dataclasses import dataclass

from mm_assets.checks.rules import Rules
from mm_assets.checks.validations import Finding
from mm_assets.errors import ObjectCorruptError, ObjectMissingError
from mm_assets.promotion.chain import Head, Link, find_head, first_bytes, head_record, read_links
from mm_assets.promotion.decision import read_decision
from mm_assets.promotion.record import STATES, UNNUMBERED, State, entry_key, first_key, registry_key
from mm_assets.promotion.registration import holds_decision
from mm_assets.promotion.registry import demanded_states, find_obstacle
from mm_assets.promotion.superseded import ancestors, superseded_key
from mm_assets.promotion.validate import decision_problem
from mm_assets.store.manifest import Manifest, read_manifest
from mm_assets.store.objects import Store, object_key


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One key of a registry that is wrong; ``is_missing`` if it does not exist."""

    key: str
    detail: str
    is_missing: bool = False


def validate_registration(store: Store, manifest: Manifest, rules: Rules) -> tuple[Finding, ...]:
    """A promoted model is in the history of every state it was promoted to, or superseded; a rejected one in none."""
    del rules
    return (check_registration(store, manifest),)


def check_registration(store: Store, manifest: Manifest) -> Finding:
    """Whether the registry holds what this registration says it registered, or what followed it."""
    promotion_digest = manifest.input("promotion").manifest
    try:
        promotion = read_manifest(store, promotion_digest)
        decision = read_decision(store, promotion)
        heads = {state: find_head(store, state) for state in STATES}
        registered = {state for state in STATES if holds_decision(store, state, promotion, promotion_digest)}
    except (ObjectMissingError, ObjectCorruptError) as error:
        return Finding(rule="registry_agrees", passed=False, detail=str(error))
    demanded = demanded_states(decision)
    wrong: list[str] = []
    notes: list[str] = []
    for state in STATES:
        if state in demanded and state not in registered:
            obstacle = _superseded(store, state, promotion, promotion_digest, heads[state])
            if obstacle is None:
                wrong.append(f"{state}: the promoted model is not registered")
            else:
                notes.append(f"{state}: {obstacle}")
        if state not in demanded and state in registered:
            wrong.append(f"{state}: the model is registered although the decision is {decision.decision}")
    detail = "; ".join(wrong or notes) or f"registered for {', '.join(demanded) or 'nothing'}, as decided"
    return Finding(rule="registry_agrees", passed=not wrong, detail=detail, num_failing=len(wrong))


def find_registry_problems(store: Store) -> Iterator[Problem]:
    """Everything that is wrong with the heads, the numbered entries and the decisions that records name."""
    for state in STATES:
        yield from _find_state_problems(store, state)


def _superseded(store: Store, state: State, promotion: Manifest, digest: str, head: Head) -> str | None:
    last = head_record(store, state, head)
    if last is None:
        return None
    own = last.model_copy(update={"release": promotion.partition.release, "decision": digest})
    return find_obstacle(store, own, head)


def _find_state_problems(store: Store, state: State) -> Iterator[Problem]:
    key = registry_key(state)
    try:
        head = find_head(store, state)
    except ObjectCorruptError as error:
        yield Problem(key=key, detail=str(error))
        return
    if head.damage is not None:
        yield Problem(key=key, detail=head.damage, is_missing=head.etag is None)
    try:
        links = read_links(store, state, head.data)
    except (ObjectMissingError, ObjectCorruptError) as error:
        yield Problem(key=key, detail=f"its history cannot be read: {error}")
        return
    yield from _find_entry_problems(store, state, links)
    yield from _find_release_problems(store, state, links)
    yield from _find_mark_problems(store, state, links)
    for link in links:
        yield from _find_copy_problems(store, link, is_head=link is links[0])
        problem = decision_problem(store, link.record)
        if problem is not None:
            place = entry_key(state, link.number)
            yield Problem(key=place if store.read_key(place) else key, detail=problem)


def _find_entry_problems(store: Store, state: State, links: list[Link]) -> Iterator[Problem]:
    present = {info.key for info in store.list_keys(f"registry/{state}/")}
    expected = {entry_key(state, link.number): link for link in links}
    for key in sorted(present - set(expected)):
        yield Problem(key=key, detail="is not part of the history")
    # A run killed between the move of the head and its entry leaves the last entry to the next registration.
    is_numbered = bool(present) or any(link.record.sequence != UNNUMBERED for link in links)
    for key, link in expected.items():
        if key in present:
            found = store.read_key(key)
            if found is None or found.data != link.data:
                yield Problem(key=key, detail="differs from the record of its place in the history")
        elif is_numbered and link is not links[0]:
            yield Problem(key=key, detail="a numbered entry of the history is gone", is_missing=True)


def _find_release_problems(store: Store, state: State, links: list[Link]) -> Iterator[Problem]:
    """The keys that find a release's records; a chain that was written before there were any has none."""
    present = {info.key for info in store.list_keys(f"registered/{state}/")}
    firsts = {first_key(state, link.record.release): link.number for link in links}
    for key in sorted(present - set(firsts)):
        yield Problem(key=key, detail="names a release that is not in the history")
    for key, number in firsts.items():
        if key in present:
            found = store.read_key(key)
            if found is None or found.data != first_bytes(number):
                yield Problem(key=key, detail=f"does not name record {number}, the first of its release")
        elif present and number != links[0].number:
            yield Problem(key=key, detail="the key that finds a release's records is gone", is_missing=True)


def _find_mark_problems(store: Store, state: State, links: list[Link]) -> Iterator[Problem]:
    """Marks of what the registered releases add to; a chain that was written before there were any has none."""
    present = {info.key for info in store.list_keys(f"superseded/{state}/")}
    expected: dict[str, int] = {}
    for link in reversed(links):
        for ancestor in ancestors(store, link.record.release):
            key = superseded_key(state, ancestor)
            if key in expected:
                break
            expected[key] = link.number
    for key in sorted(present - set(expected)):
        yield Problem(key=key, detail="marks a release that no registered one adds to")
    for key, number in expected.items():
        # A run killed right after it moved the head leaves its marks to the next registration.
        if present and key not in present and number != links[0].number:
            yield Problem(key=key, detail="the mark of a release that was superseded is gone", is_missing=True)


def _find_copy_problems(store: Store, link: Link, *, is_head: bool) -> Iterator[Problem]:
    """Records before the head are objects too; of ``mm.production/1`` the head is not."""
    if is_head and link.record.sequence == UNNUMBERED:
        return
    try:
        store.check_object(link.digest)
    except ObjectMissingError as error:
        yield Problem(key=object_key(link.digest), detail=str(error), is_missing=True)
    except ObjectCorruptError as error:
        yield Problem(key=object_key(link.digest), detail=str(error))
