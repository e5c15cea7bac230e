"""What an action led to is remembered once, looked up without a write, and never served damaged or mixed up."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from mm_assets.errors import NonDeterminismError, ObjectCorruptError
from mm_assets.identity.canonical import digest_bytes, digest_hex
from mm_assets.store.action import (
    Adoption,
    Environments,
    Maker,
    action_key,
    adopted_makers,
    adoption_prefix,
    find_action,
    inputs_digest,
    read_objects,
    record_action,
    record_adoption,
)
from mm_assets.store.commit import Attempt
from mm_assets.store.manifest import Input, NamedDigest, Partition
from mm_assets.store.objects import object_key
from mm_assets_tests.store.committing import (
    CODE,
    PARTITION,
    action_of,
    counted_writes,
    damage,
    delete,
    flip,
    forbidden,
    materialize,
    writing,
)

NEW_CODE, NEWER_CODE = digest_bytes(b"new code"), digest_bytes(b"newer code")
A, B, C = (digest_bytes(name) for name in (b"a", b"b", b"c"))


def an_input(*, asset="snapshot", release="r1", manifest=A, name="samples.tar", digest=B, role=None):
    return Input(
        asset=asset,
        partition={"release": release, "shard": "0000"},
        manifest=manifest,
        outputs=[NamedDigest(name=name, digest=digest)],
        role=role,
    )


def maker(code, environment=None):
    return Maker(code=code, environment=environment or {})


def adoption(old, new):
    return Adoption(
        schema="mm.adoption/1", asset="snapshot", old_code=old, new_code=new, partitions=["r1/0000"], by="ada",
        at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def test_an_upstream_name_or_manifest_does_not_enter_the_fingerprint():
    fingerprints = {
        action_of(inputs=[an_input(**change)]).fingerprint for change in ({}, {"release": "r2"}, {"manifest": C})
    }
    assert len(fingerprints) == 1


def test_every_object_that_is_read_its_role_and_their_order_enter_the_fingerprint():
    inputs = [
        [],
        [an_input()],
        [an_input(digest=C)],
        [an_input(name="samples.parquet")],
        [an_input(role="parent")],
        [an_input(asset="features")],
        [an_input(), an_input(digest=C)],
        [an_input(digest=C), an_input()],
    ]
    actions = [action_of(inputs=entry) for entry in inputs]
    assert len({action.fingerprint for action in actions}) == len(inputs)
    assert len({inputs_digest(action.inputs) for action in actions}) == len(inputs)
    others = [action_of("q"), action_of(asset="features"), action_of(code=NEW_CODE)]
    assert len({action.fingerprint for action in [*actions, *others]}) == len(inputs) + 3


def test_a_drop_is_named_because_its_name_is_in_the_ids():
    def read(drop):
        entry = an_input(asset="drop", name="t.tar")
        return read_objects([entry.model_copy(update={"partition": {"source": "zoo", "drop": drop}})])

    assert read("d1") == [{"role": "drop/zoo/d1/t.tar", "digest": B}]
    assert read("d1") != read("d2")


def test_a_look_up_writes_nothing(any_store, write_files):
    with counted_writes(any_store) as writes:
        assert find_action(any_store, action_of()) is None
    assert writes == []
    committed = materialize(any_store, action_of(), write_files(b"x"))
    with counted_writes(any_store) as writes:
        found = find_action(any_store, action_of())
    assert writes == []
    assert found.outputs == committed.manifest.outputs
    with counted_writes(any_store) as writes:
        materialize(any_store, action_of("q"), write_files(b"y"))
    assert writes, "the count sees the writes of a commit"


@pytest.mark.parametrize("harm", ["flip", "delete", "longer"])
def test_damaged_outputs_are_not_served_and_are_put_right_by_computing(any_store, write_files, harm):
    first = materialize(any_store, action_of(), write_files(b"one", b"two"))
    digest = first.manifest.output("file1").digest
    if harm == "flip":
        flip(any_store, digest)
    elif harm == "delete":
        delete(any_store, object_key(digest))
    else:
        damage(any_store, object_key(digest), b"two and more")
    assert find_action(any_store, action_of()) is None
    assert Attempt(any_store, action_of(), PARTITION).commit_known() is None
    again = materialize(any_store, action_of(), write_files(b"one", b"two"))
    assert (again.cached, again.manifest_digest) == (False, first.manifest_digest)
    assert any_store.get_bytes(digest) == b"two"


def test_computing_again_by_force_puts_a_flip_right(any_store, write_files):
    first = materialize(any_store, action_of(), write_files(b"weights"))
    digest = first.manifest.output("file0").digest
    flip(any_store, digest)
    with pytest.raises(ObjectCorruptError):
        any_store.get_bytes(digest)
    materialize(any_store, action_of(), write_files(b"weights"), force=True)
    assert any_store.get_bytes(digest) == b"weights"


def test_the_record_of_another_action_is_not_served_and_is_replaced(any_store, write_files):
    materialize(any_store, action_of("other"), write_files(b"other"))
    forged = any_store.read_key(action_key(action_of("other").fingerprint)).data
    key = action_key(action_of().fingerprint)
    assert any_store.create_key(key, forged)
    assert find_action(any_store, action_of()) is None
    committed = materialize(any_store, action_of(), write_files(b"mine"))
    assert not committed.cached
    assert any_store.get_bytes(committed.manifest.output("file0").digest) == b"mine"
    assert find_action(any_store, action_of()).outputs == committed.manifest.outputs


@pytest.mark.parametrize("data", [b"", b"{}", b"not json", b'{"manifest":"sha256:00"}', b"[]"])
def test_an_unreadable_record_is_not_served_and_is_replaced(store, write_files, data):
    store.create_key(action_key(action_of().fingerprint), data)
    assert find_action(store, action_of()) is None
    committed = materialize(store, action_of(), write_files(b"x"))
    assert find_action(store, action_of()).outputs == committed.manifest.outputs


def test_other_outputs_are_non_determinism_and_the_first_stay(any_store, write_files):
    first = materialize(any_store, action_of(), write_files(b"x"))
    elsewhere = Partition(release="r2", shard="0000")
    with pytest.raises(NonDeterminismError, match="file0: expected sha256:") as caught:
        materialize(any_store, action_of(), write_files(b"y"), partition=elsewhere, force=True)
    assert first.manifest.fingerprint in str(caught.value)
    assert any_store.read_key("refs/snapshot/r2/0000.json") is None
    assert find_action(any_store, action_of()).outputs == first.manifest.outputs


def test_more_fewer_or_other_facts_are_non_determinism_too(store, write_files, tmp_path):
    materialize(store, action_of(), write_files(b"x"))
    for compute, named in (
        (write_files(b"x", b"y"), "file1: expected None, got sha256:"),
        (writing(tmp_path / "o", {"file0": b"x"}, stats={"rows_in": 7}), "stats rows_in differ"),
    ):
        with pytest.raises(NonDeterminismError, match=named):
            materialize(store, action_of(), compute, force=True)


def test_the_first_of_many_writers_wins_and_the_others_are_told(any_store, tmp_path):
    def attempt(number):
        compute = writing(tmp_path / str(number), {"out": str(number % 4).encode()})
        try:
            return materialize(
                any_store, action_of(), compute, partition=Partition(release=f"r{number}", shard="0000"), force=True
            )
        except NonDeterminismError as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(attempt, range(8)))
    outputs = find_action(any_store, action_of()).outputs
    winners = [result for result in results if not isinstance(result, NonDeterminismError)]
    assert len(winners) == 2, "two of eight wrote the same bytes"
    assert all(winner.manifest.outputs == outputs for winner in winners)


def test_recording_again_alike_changes_nothing(any_store, write_files):
    committed = materialize(any_store, action_of(), write_files(b"x"))
    key = action_key(action_of().fingerprint)
    before = any_store.read_key(key)
    record_action(any_store, action_of(), committed.manifest.outputs, committed.manifest.stats)
    assert any_store.read_key(key) == before


def test_adopted_code_finds_what_the_code_before_it_led_to(any_store, write_files):
    first = materialize(any_store, action_of(), write_files(b"x"))
    assert adopted_makers(any_store, "snapshot", maker(NEWER_CODE)) == []
    record_adoption(any_store, adoption(CODE, NEW_CODE))
    record_adoption(any_store, adoption(NEW_CODE, NEWER_CODE))
    makers = adopted_makers(any_store, "snapshot", maker(NEWER_CODE))
    assert makers == [maker(NEW_CODE), maker(CODE)]
    again = materialize(any_store, action_of(code=NEWER_CODE), forbidden, adopted=makers)
    assert (again.cached, again.manifest.content) == (True, first.manifest.content)
    assert again.manifest.code == NEWER_CODE
    assert find_action(any_store, action_of(code=NEWER_CODE)) is not None, "it is remembered under its own code now"
    assert adopted_makers(any_store, "features", maker(NEWER_CODE)) == []
    assert adopted_makers(any_store, "snapshot", maker(CODE)) == [], "the old code is not proven to equal the new one"


def test_an_adoption_of_codecs_holds_for_these_codecs_only(store, write_files):
    old, new, third = ({"libsndfile": version} for version in ("1.2.2", "1.2.3", "1.2.4"))
    first = materialize(store, replace(action_of(), environment=old), write_files(b"x"))
    codecs = Environments(old=old, new=new)
    record_adoption(store, adoption(CODE, CODE).model_copy(update={"environments": codecs}))
    record_adoption(store, adoption(CODE, NEW_CODE))
    makers = adopted_makers(store, "snapshot", maker(NEW_CODE, new))
    assert makers == [maker(CODE, new), maker(CODE, old)]
    assert adopted_makers(store, "snapshot", maker(NEW_CODE, third)) == [maker(CODE, third)]
    again = materialize(store, replace(action_of(code=NEW_CODE), environment=new), forbidden, adopted=makers)
    assert (again.cached, again.manifest.content) == (True, first.manifest.content)
    assert again.manifest.environment == new


def test_an_adopted_action_with_damaged_outputs_is_not_served(any_store, write_files):
    first = materialize(any_store, action_of(), write_files(b"x"))
    flip(any_store, first.manifest.output("file0").digest)
    assert find_action(any_store, action_of(code=NEW_CODE), [maker(CODE)]) is None


def test_a_broken_adoption_is_named(store):
    key = adoption_prefix("snapshot", NEW_CODE) + f"{digest_hex(CODE)}.json"
    store.create_key(key, b'{"old_code": "x"}')
    with pytest.raises(ObjectCorruptError, match="is not an adoption"):
        adopted_makers(store, "snapshot", maker(NEW_CODE))
