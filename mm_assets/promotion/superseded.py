"""Releases that a registered one adds to: they move the registry no more, however late they are promoted.

``superseded/<state>/<release>.json`` marks such a release. Where a release is marked, all that it adds to are, so a
look-up reads one key, and the first unmarked ancestors of the last record: those that a run killed right after it
moved the head has left to the next registration.
"""

from collections.abc import Iterator

from mm_assets.errors import UnknownReleaseError
from mm_assets.identity.canonical import canonical_json
from mm_assets.promotion.record import State
from mm_assets.releases.spec import read_spec
from mm_assets.store.objects import Store


def superseded_key(state: State, release: str) -> str:
    """``superseded/<state>/<release>.json``."""
    return f"superseded/{state}/{release}.json"


def is_superseded(store: Store, state: State, release: str, *, last: str) -> bool:
    """Whether a registered release adds to ``release``, directly or not; ``last`` is the one registered last."""
    is_marked = store.read_key(superseded_key(state, release)) is not None
    return is_marked or release in _unmarked(store, state, last)


def mark_ancestors(store: Store, state: State, release: str) -> None:
    """Marks what a registered release adds to, the oldest first. Idempotent."""
    for ancestor in reversed(_unmarked(store, state, release)):
        store.create_key(superseded_key(state, ancestor), canonical_json({"schema": "mm.superseded/1", "by": release}))


def ancestors(store: Store, release: str) -> Iterator[str]:
    """The releases that ``release`` adds to, nearest first, as far as their specs exist."""
    while True:
        try:
            parent = read_spec(store, release).parent
        except UnknownReleaseError:
            return
        if parent is None:
            return
        release = parent.release
        yield release


def _unmarked(store: Store, state: State, release: str) -> list[str]:
    """The ancestors of ``release``, nearest first, up to the first one that is marked."""
    found: list[str] = []
    for ancestor in ancestors(store, release):
        if store.read_key(superseded_key(state, ancestor)) is not None:
            break
        found.append(ancestor)
    return found
