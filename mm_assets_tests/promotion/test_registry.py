"""The registry as a state machine: moved by decisions only, never back, never lost to a race."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mm_assets.errors import CommitConflictError, ObjectCorruptError
from mm_assets.evaluation.report import Report
from mm_assets.identity.canonical import canonical_json, digest_bytes, digest_json
from mm_assets.promotion import registry
from mm_assets.promotion.chain import find_head, read_history, read_production, read_registry
from mm_assets.promotion.record import STATES, RegistryRecord, entry_key, first_key, registry_key
from mm_assets.promotion.registry import register
from mm_assets.releases.spec import ReleasePin
from mm_assets.store.commit import Attempt, Committed, StageResult
from mm_assets.store.manifest import SCHEMA as MANIFEST_SCHEMA
from mm_assets.store.manifest import Input, Manifest, Output, Partition, content_digest
from mm_assets.store.objects import Store, object_key
from mm_assets_tests.by_hand import action_of, open_by_hand

Promote = Callable[..., Committed]
ReportOf = Callable[..., Report]


def promotion(store: Store, release: str, version: int, *, state: str = "production") -> tuple[Manifest, str]:
    """A committed promotion's manifest, without the stages before it."""
    decision: dict[str, Any] = {
        "schema": "mm.decision/1",
        "decision": "rejected" if state == "none" else "promoted",
        "state": state,
        "model": digest_json(["model", release, version]),
        "dataset_release": digest_json(["dataset_release", release]),
        "evaluation": digest_json(["evaluation", release, version]),
        "thresholds": digest_json("thresholds"),
        "gates": [],
    }
    data = canonical_json(decision)
    output = Output(
        name="decision.json", digest=store.put_bytes(data), size_bytes=len(data), media_type="application/json"
    )
    action = action_of(
        "promotion",
        [
            Input(asset=asset, partition={"release": release}, manifest=decision[asset], outputs=[])
            for asset in ("model", "dataset_release", "evaluation")
        ],
    )
    manifest = Manifest(
        schema=MANIFEST_SCHEMA, asset="promotion", partition=Partition(release=release),
        fingerprint=action.fingerprint, content=content_digest([output]), code=action.code, params={}, environment={},
        inputs=list(action.inputs), outputs=[output], stats={},
    )  # fmt: skip
    return manifest, store.put_bytes(manifest.encode())


def releases_of(store: Store) -> list[str]:
    return [record.release for record in read_history(store, "production")]


def test_a_promoted_model_is_candidate_and_production(store: Store) -> None:
    assert read_production(store) is None
    manifest, digest = promotion(store, "r1", 0)
    registered = register(store, manifest, digest)
    assert registered.moved == ("candidate", "production")
    production = read_production(store)
    assert production == RegistryRecord(
        schema="mm.production/2",
        sequence=1,
        state="production",
        release="r1",
        model=digest_json(["model", "r1", 0]),
        dataset_release=digest_json(["dataset_release", "r1"]),
        decision=digest,
        previous=None,
    )


def test_a_rejection_touches_nothing(store: Store) -> None:
    registered = register(store, *promotion(store, "r1", 0, state="none"))
    assert (registered.moved, registered.reason) == ((), "the decision is a rejection")
    assert list(store.list_keys("refs/registry/")) == []


def test_a_candidate_leaves_production_alone(store: Store) -> None:
    register(store, *promotion(store, "r1", 0))
    assert register(store, *promotion(store, "r2", 0, state="candidate")).moved == ("candidate",)
    candidate, production = read_registry(store, "candidate"), read_production(store)
    assert candidate is not None
    assert production is not None
    assert (candidate.release, production.release) == ("r2", "r1")


def test_a_release_run_again_from_the_cache_never_moves_production_back(store: Store) -> None:
    first, second = promotion(store, "r1", 0), promotion(store, "r2", 0)
    for entry in (first, second, first, second, first):
        registered = register(store, *entry)
    assert releases_of(store) == ["r2", "r1"]
    assert (registered.moved, registered.reason) == ((), "the decision is registered already")


def test_an_older_release_decided_anew_does_not_move_back_either(store: Store) -> None:
    for release, version in (("r1", 0), ("r2", 0), ("r1", 1)):
        registered = register(store, *promotion(store, release, version))
    assert releases_of(store) == ["r2", "r1"]
    assert registered.reason == "release r1 was superseded by r2"


def test_the_release_in_production_may_get_a_new_model(store: Store) -> None:
    register(store, *promotion(store, "r1", 0))
    assert register(store, *promotion(store, "r1", 1)).moved == ("candidate", "production")
    assert releases_of(store) == ["r1", "r1"]


def test_a_parent_that_passes_late_does_not_replace_its_child(
    store: Store, promote: Promote, report_of: ReportOf
) -> None:
    bad, good = report_of(overall=0.1), report_of()
    parent = promote("r1", bad)
    child = promote("r2", good, parent="r1")
    for committed in (parent, child):
        register(store, committed.manifest, committed.manifest_digest)
    late = promote("r1", good, version=1)
    registered = register(store, late.manifest, late.manifest_digest)
    assert (registered.moved, registered.reason) == ((), "release r1 was superseded by r2")
    assert releases_of(store) == ["r2"]


def delete(store: Store, key: str) -> None:
    store.client.delete_object(Bucket=store.bucket, Key=f"{store.prefix}/{key}")


def overwrite(store: Store, key: str, data: bytes) -> None:
    store.client.put_object(Bucket=store.bucket, Key=f"{store.prefix}/{key}", Body=data)


def read(store: Store, key: str) -> bytes:
    current = store.read_key(key)
    assert current is not None
    return current.data


def test_a_run_killed_between_candidate_and_production_is_completed(store: Store) -> None:
    manifest, digest = promotion(store, "r1", 0)
    register(store, manifest, digest)
    delete(store, registry_key("production"))
    delete(store, entry_key("production", 1))
    assert register(store, manifest, digest).moved == ("production",)


def test_the_history_reaches_back_to_the_first_model(store: Store) -> None:
    for number in range(5):
        register(store, *promotion(store, f"r{number}", 0))
    history = list(read_history(store, "production"))
    assert [record.release for record in history] == ["r4", "r3", "r2", "r1", "r0"]
    assert [record.previous is None for record in history] == [False, False, False, False, True]


def test_every_record_is_an_object_and_a_numbered_entry(store: Store) -> None:
    for number in range(3):
        register(store, *promotion(store, f"r{number}", 0))
    for state in STATES:
        entries = [read(store, entry_key(state, number)) for number in (1, 2, 3)]
        assert entries[-1] == read(store, registry_key(state))
        assert [json.loads(data)["sequence"] for data in entries] == [1, 2, 3]
        assert [json.loads(data)["previous"] for data in entries] == [None, *map(digest_bytes, entries[:2])]
        assert all(store.get_bytes(digest_bytes(data)) == data for data in entries)


DAMAGES: dict[str, Callable[[Store], None]] = {
    "deleted": lambda store: delete(store, registry_key("production")),
    "not JSON": lambda store: overwrite(store, registry_key("production"), b"\x00"),
    "not a record": lambda store: overwrite(store, registry_key("production"), b'{"schema": "mm.production/2"}'),
    "another state": lambda store: overwrite(store, registry_key("production"), read(store, registry_key("candidate"))),
    "an older record": lambda store: overwrite(
        store, registry_key("production"), read(store, entry_key("production", 2))
    ),
    "the first record": lambda store: overwrite(
        store, registry_key("production"), read(store, entry_key("production", 1))
    ),
    "a record without history": lambda store: overwrite(
        store,
        registry_key("production"),
        canonical_json(
            json.loads(read(store, registry_key("production"))) | {"sequence": 1, "previous": None, "release": "forged"}
        ),
    ),
    "a history of its own": lambda store: overwrite(
        store,
        registry_key("production"),
        canonical_json(json.loads(read(store, registry_key("production"))) | {"release": "forged"}),
    ),
    "an old record of the first version": lambda store: overwrite(
        store, registry_key("production"), first_version(store, "r9", None)
    ),
}


def first_version(store: Store, release: str, previous: str | None) -> bytes:
    """A record as ``mm.production/1`` wrote it."""
    manifest, digest = promotion(store, release, 0)
    named = {asset: manifest.input(asset).manifest for asset in ("model", "dataset_release")}
    record = {"schema": "mm.production/1", "state": "production", "release": release, "decision": digest}
    return canonical_json(record | named | {"previous": previous})


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_head_is_read_and_repaired_from_the_numbered_entries(store: Store, damage: str) -> None:
    for number in range(3):
        register(store, *promotion(store, f"r{number}", 0))
    good = read(store, registry_key("production"))
    DAMAGES[damage](store)
    production = read_production(store)
    assert production is not None
    assert (production.release, production.sequence) == ("r2", 3)
    assert releases_of(store) == ["r2", "r1", "r0"]
    assert register(store, *promotion(store, "r0", 0)).repaired == ("production",)
    assert read(store, registry_key("production")) == good
    assert register(store, *promotion(store, "r3", 0)).moved == ("candidate", "production")
    assert releases_of(store) == ["r3", "r2", "r1", "r0"]


def test_a_rejection_repairs_a_damaged_head_too(store: Store) -> None:
    register(store, *promotion(store, "r1", 0))
    delete(store, registry_key("candidate"))
    registered = register(store, *promotion(store, "r2", 0, state="none"))
    assert (registered.moved, registered.repaired) == ((), ("candidate",))


def test_a_run_killed_before_it_wrote_its_numbered_entry_loses_nothing(store: Store) -> None:
    register(store, *promotion(store, "r1", 0))
    register(store, *promotion(store, "r2", 0))
    delete(store, entry_key("production", 2))
    assert releases_of(store) == ["r2", "r1"]
    register(store, *promotion(store, "r3", 0))
    assert json.loads(read(store, entry_key("production", 2)))["release"] == "r2"
    assert releases_of(store) == ["r3", "r2", "r1"]


def test_numbered_entries_that_were_deleted_are_written_again(store: Store) -> None:
    for number in range(3):
        register(store, *promotion(store, f"r{number}", 0))
    for number in (1, 2, 3):
        delete(store, entry_key("production", number))
    assert releases_of(store) == ["r2", "r1", "r0"]
    register(store, *promotion(store, "r3", 0))
    assert [json.loads(read(store, entry_key("production", number)))["sequence"] for number in (1, 2, 3, 4)] == [
        1, 2, 3, 4,
    ]  # fmt: skip


def test_an_older_record_whose_object_is_damaged_is_read_from_its_entry(store: Store) -> None:
    for number in range(2):
        register(store, *promotion(store, f"r{number}", 0))
    overwrite(store, object_key(digest_bytes(read(store, entry_key("production", 1)))), b"x")
    assert releases_of(store) == ["r1", "r0"]


def test_a_registry_of_the_first_version_is_continued_and_numbered(store: Store) -> None:
    first = first_version(store, "r1", None)
    second = first_version(store, "r2", store.put_bytes(first))
    overwrite(store, registry_key("production"), second)
    production = read_production(store)
    assert production is not None
    assert production.release == "r2"
    assert production.encode() == second
    assert list(store.list_keys("registry/")) == []
    assert register(store, *promotion(store, "r3", 0)).moved == ("candidate", "production")
    assert releases_of(store) == ["r3", "r2", "r1"]
    assert [read(store, entry_key("production", number)) for number in (1, 2)] == [first, second]
    last = json.loads(read(store, registry_key("production")))
    assert (last["sequence"], last["previous"]) == (3, digest_bytes(second))
    delete(store, registry_key("production"))
    assert releases_of(store) == ["r3", "r2", "r1"]


@pytest.fixture(params=["store", pytest.param("seaweed_store", marks=pytest.mark.integration)])
def any_store(request: pytest.FixtureRequest) -> Store:
    """An empty store on each server whose conditional writes must hold."""
    return request.getfixturevalue(request.param)


def test_concurrent_writers_lose_nothing(any_store: Store) -> None:
    store = any_store
    entries = [promotion(store, f"r{number}", 0) for number in range(6)]
    barrier = threading.Barrier(len(entries))
    failures: list[Exception] = []

    def write(entry: tuple[Manifest, str]) -> None:
        barrier.wait()
        try:
            register(store, *entry)
        except CommitConflictError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(entry,)) for entry in entries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for state in STATES:
        history = list(read_history(store, state))
        assert sorted(record.release for record in history) == [f"r{number}" for number in range(6)]


def test_a_reader_never_takes_a_moving_head_for_a_damaged_one(store: Store) -> None:
    entries = [promotion(store, f"r{number}", 0, state="candidate") for number in range(12)]
    damages: list[str | None] = []
    seen: list[int] = []
    is_done = threading.Event()

    def watch() -> None:
        while not is_done.is_set():
            head = find_head(store, "candidate")
            damages.append(head.damage)
            seen.append(0 if head.data is None else json.loads(head.data)["sequence"])

    readers = [threading.Thread(target=watch) for _ in range(3)]
    for reader in readers:
        reader.start()
    for entry in entries:
        register(store, *entry)
    is_done.set()
    for reader in readers:
        reader.join()
    assert set(damages) == {None}
    assert len(set(seen)) > 2
    record = read_registry(store, "candidate")
    assert record is not None
    assert record.sequence == 12


def test_a_writer_that_always_loses_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    register(store, *promotion(store, "r0", 0))
    entry = promotion(store, "r1", 0)
    monkeypatch.setattr(registry, "MAX_ATTEMPTS", 0)
    with pytest.raises(CommitConflictError, match="registry candidate: others moved it 0 times while r1"):
        register(store, *entry)


def calls_of(store: Store, action: Callable[[], object]) -> int:
    calls: list[str] = []

    def note(model: Any, **_: Any) -> None:
        calls.append(model.name)

    store.client.meta.events.register("before-call.s3", note)
    action()
    store.client.meta.events.unregister("before-call.s3", note)
    return len(calls)


def test_a_registration_costs_the_same_after_few_and_after_many(store: Store) -> None:
    entries = [promotion(store, f"r{number}", 0) for number in range(24)]
    again = promotion(store, "r0", 1)
    counted = [calls_of(store, lambda entry=entry: register(store, *entry)) for entry in entries]
    assert len(set(counted[2:])) == 1
    assert calls_of(store, lambda: register(store, *again)) <= counted[-1]
    assert register(store, *again).reason == "release r0 was superseded by r23"


def open_line(store: Store, length: int) -> None:
    """Releases r0, r1, … each of which adds to the one before it."""
    for number in range(length):
        parent = f"r{number - 1}"
        pin = ReleasePin(release=parent, digest=digest_json(parent)) if number else None
        open_by_hand(store, f"r{number}", parent=pin)


def cost_of_another(store: Store, length: int) -> int:
    """Calls of a registration that adds to nothing, after a line of this length was registered."""
    own = replace(store, prefix=f"line-of-{length}")
    open_line(own, length)
    for number in range(length):
        assert register(own, *promotion(own, f"r{number}", 0)).moved == STATES
    open_by_hand(own, "experiment")
    entry = promotion(own, "experiment", 0)
    return calls_of(own, lambda: register(own, *entry))


def test_a_registration_costs_the_same_beside_a_short_and_a_long_line(store: Store) -> None:
    assert cost_of_another(store, 4) == cost_of_another(store, 16)


def test_a_registration_costs_the_same_early_and_late_in_a_line(store: Store) -> None:
    open_line(store, 16)
    entries = [promotion(store, f"r{number}", 0) for number in range(16)]
    counted = [calls_of(store, lambda entry=entry: register(store, *entry)) for entry in entries]
    assert len(set(counted[3:])) == 1


def test_whoever_a_registered_release_adds_to_is_superseded_even_when_others_followed(store: Store) -> None:
    open_line(store, 3)
    open_by_hand(store, "other")
    for release in ("r2", "other"):
        assert register(store, *promotion(store, release, 0)).moved == STATES
    for release in ("r0", "r1"):
        assert register(store, *promotion(store, release, 0)).reason == f"release {release} was superseded by other"
    assert releases_of(store) == ["other", "r2"]


def test_marks_that_a_killed_run_left_out_are_read_from_the_line_and_written_next(store: Store) -> None:
    open_line(store, 3)
    open_by_hand(store, "other")
    register(store, *promotion(store, "r2", 0))
    for info in list(store.list_keys("superseded/")):
        delete(store, info.key)
    assert register(store, *promotion(store, "r0", 0)).reason == "release r0 was superseded by r2"
    register(store, *promotion(store, "other", 0))
    assert register(store, *promotion(store, "r1", 0)).reason == "release r1 was superseded by other"


@pytest.mark.parametrize("damage", [b"", b"{}", canonical_json({"schema": "mm.registered/1", "number": 3})])
def test_a_release_whose_key_is_damaged_is_found_in_the_chain(store: Store, damage: bytes) -> None:
    for number in range(4):
        register(store, *promotion(store, f"r{number}", 0))
    for state in STATES:
        overwrite(store, first_key(state, "r1"), damage)
    assert register(store, *promotion(store, "r1", 1)).reason == "release r1 was superseded by r3"


def test_a_release_whose_key_was_deleted_does_not_move_back(store: Store) -> None:
    for number in range(4):
        register(store, *promotion(store, f"r{number}", 0))
    attempt = Attempt(store, action_of("registration", []), Partition(release="r1"))
    attempt.commit_result(StageResult(files=(), stats={"moved": [*STATES]}))
    for state in STATES:
        delete(store, first_key(state, "r1"))
    assert register(store, *promotion(store, "r1", 1)).reason == "release r1 was superseded by r3"
    assert releases_of(store) == ["r3", "r2", "r1", "r0"]


def test_a_chain_without_keys_of_releases_gets_them(store: Store) -> None:
    for number in range(3):
        register(store, *promotion(store, f"r{number}", 0))
    keys = [info.key for info in store.list_keys("registered/")]
    before = {key: read(store, key) for key in keys}
    for key in keys:
        delete(store, key)
    assert register(store, *promotion(store, "r0", 1)).reason == "release r0 was superseded by r2"
    assert {key: read(store, key) for key in keys} == before


def test_a_damaged_registry_is_named(store: Store) -> None:
    store.create_key(registry_key("production"), b'{"schema":"mm.production/1"}')
    with pytest.raises(ObjectCorruptError, match="refs/registry/production.json: it or its history holds something"):
        read_production(store)
    with pytest.raises(ObjectCorruptError, match="refs/registry/production.json"):
        register(store, *promotion(store, "r1", 0))


@pytest.mark.property
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 1), st.sampled_from(["production", "candidate", "none"])),
        max_size=8,
    )
)
def test_any_order_of_decisions_keeps_the_laws(store: Store, steps: list[tuple[int, int, str]]) -> None:
    for prefix in ("refs/registry/", "registry/", "registered/", "superseded/"):
        for info in store.list_keys(prefix):
            delete(store, info.key)
    previous: list[str] = []
    for number, version, state in steps:
        manifest, digest = promotion(store, f"r{number}", version, state=state)
        registered = register(store, manifest, digest)
        assert register(store, manifest, digest).moved == (), "applying twice moves nothing"
        history = list(read_history(store, "production"))
        decisions = [record.decision for record in history]
        assert len(set(decisions)) == len(decisions), "no decision is registered twice"
        assert decisions[len(decisions) - len(previous) :] == previous, "history only grows"
        assert ("production" in registered.moved) == (len(decisions) > len(previous))
        runs = [
            record.release for i, record in enumerate(history) if i == 0 or history[i - 1].release != record.release
        ]
        assert len(set(runs)) == len(runs), "a release that was left is never returned to"
        previous = decisions
