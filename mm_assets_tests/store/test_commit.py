import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from mm_assets.errors import CommitConflictError, NonDeterminismError, ObjectMissingError
from mm_assets.lineage.verify import verify_store
from mm_assets.store.action import action_key
from mm_assets.store.commit import Attempt
from mm_assets.store.manifest import Manifest, Partition, content_digest, read_manifest
from mm_assets.store.objects import object_key
from mm_assets.store.refs import list_refs, read_ref, ref_key, require_ref
from mm_assets_tests.store.committing import PARTITION, action_of, damage, delete, forbidden, materialize, writing


def test_partition_is_committed_with_its_outputs_and_ref(any_store, write_files):
    committed = materialize(any_store, action_of(), write_files(b"one", b"two"), run_id="run-7")
    ref = require_ref(any_store, "snapshot", PARTITION)
    assert ref == committed.ref
    assert (ref.manifest, ref.run_id, ref.cached) == (committed.manifest_digest, "run-7", False)
    manifest = read_manifest(any_store, ref.manifest)
    assert any_store.get_bytes(manifest.output("file1").digest) == b"two"
    assert [r.partition.path for r in list_refs(any_store)] == ["r1/0000"]


def test_same_action_is_not_computed_again(any_store, write_files):
    first = materialize(any_store, action_of(), write_files(b"x"))
    again = materialize(any_store, action_of(), forbidden)
    assert (again.cached, again.manifest_digest) == (True, first.manifest_digest)


def test_same_action_of_another_partition_has_the_same_content_and_a_manifest_of_its_own(any_store, write_files):
    first = materialize(any_store, action_of(), write_files(b"x"))
    other = Partition(release="another", shard="0007")
    again = materialize(any_store, action_of(), forbidden, partition=other)
    assert again.cached
    assert again.manifest.content == first.manifest.content == again.ref.content
    assert again.manifest.fingerprint == first.manifest.fingerprint
    assert again.manifest.outputs == first.manifest.outputs
    assert (again.manifest.partition, first.manifest.partition) == (other, PARTITION)
    assert again.manifest_digest != first.manifest_digest


def test_content_depends_on_outputs_alone(any_store, write_files):
    one = materialize(any_store, action_of("a"), write_files(b"x", b"y")).manifest
    other = materialize(any_store, action_of("b", asset="features"), write_files(b"x", b"y")).manifest
    assert one.fingerprint != other.fingerprint
    assert one.content == other.content == content_digest(reversed(one.outputs))
    assert materialize(any_store, action_of("c"), write_files(b"y", b"x")).manifest.content != one.content


def test_returning_to_an_earlier_action_moves_the_ref_back_without_computing(any_store, write_files):
    first = materialize(any_store, action_of("a"), write_files(b"a"))
    materialize(any_store, action_of("b"), write_files(b"b"))
    back = Attempt(any_store, action_of("a"), PARTITION).commit_known()
    assert (back.cached, back.manifest_digest) == (True, first.manifest_digest)
    assert read_ref(any_store, "snapshot", PARTITION).ref.manifest == first.manifest_digest


@pytest.mark.integration
def test_same_action_has_one_manifest_digest_on_two_stores(store, seaweed_store, write_files):
    first = materialize(store, action_of(), write_files(b"x"), run_id="a")
    second = materialize(seaweed_store, action_of(), write_files(b"x"), run_id="b")
    assert first.manifest_digest == second.manifest_digest


def test_lost_output_is_computed_again(any_store, write_files):
    first = materialize(any_store, action_of(), write_files(b"x"))
    delete(any_store, object_key(first.manifest.output("file0").digest))
    again = materialize(any_store, action_of(), write_files(b"x"))
    assert (again.cached, again.manifest_digest) == (False, first.manifest_digest)
    assert any_store.get_bytes(first.manifest.output("file0").digest) == b"x"


def test_forced_recompute_with_the_same_result_is_fine(any_store, write_files):
    first = materialize(any_store, action_of(), write_files(b"x"))
    again = materialize(any_store, action_of(), write_files(b"x"), force=True)
    assert (again.cached, again.manifest_digest) == (False, first.manifest_digest)


def test_forced_recompute_with_another_result_is_reported_and_commits_nothing(any_store, write_files):
    first = materialize(any_store, action_of(), write_files(b"x"))
    with pytest.raises(
        NonDeterminismError, match=f"file0: expected {first.manifest.output('file0').digest}, got sha256:"
    ):
        materialize(any_store, action_of(), write_files(b"y"), force=True)
    assert require_ref(any_store, "snapshot", PARTITION).manifest == first.manifest_digest


def test_stage_that_fails_leaves_everything_as_it_was(any_store, write_files):
    first = materialize(any_store, action_of("a"), write_files(b"a"))

    def failing():
        raise RuntimeError("the stage fell over")

    with pytest.raises(RuntimeError, match="fell over"):
        materialize(any_store, action_of("b"), failing)
    assert require_ref(any_store, "snapshot", PARTITION) == first.ref
    assert any_store.read_key(action_key(action_of("b").fingerprint)) is None


def test_of_many_attempts_with_different_actions_only_winners_and_conflicts_remain(any_store, tmp_path):
    def attempt(number):
        compute = writing(tmp_path / str(number), {"out": str(number).encode()})
        try:
            return materialize(any_store, action_of(str(number)), compute)
        except CommitConflictError as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(attempt, range(8)))
    ref = require_ref(any_store, "snapshot", PARTITION)
    winners = [r for r in results if not isinstance(r, CommitConflictError)]
    assert ref.manifest in {winner.manifest_digest for winner in winners}
    manifest = read_manifest(any_store, ref.manifest)
    assert any_store.get_bytes(manifest.output("out").digest).decode() == manifest.params["p"]


def test_partition_that_was_never_materialized_is_named(any_store):
    with pytest.raises(ObjectMissingError, match="snapshot r1/0000: is not materialized"):
        require_ref(any_store, "snapshot", PARTITION)


def test_verify_names_damaged_and_missing_objects(any_store, write_files):
    committed = materialize(any_store, action_of(), write_files(b"one", b"two", b"three"))
    assert verify_store(any_store).is_sound
    damaged, missing = (committed.manifest.output(name).digest for name in ("file0", "file1"))
    damage(any_store, object_key(damaged), b"bad")
    delete(any_store, object_key(missing))
    seen = []
    report = verify_store(any_store, on_object=lambda: seen.append(1))
    assert (report.corrupt, report.missing) == ((object_key(damaged),), (object_key(missing),))
    assert report.objects == len(seen) == 4


def test_verify_names_a_damaged_manifest(any_store, write_files):
    committed = materialize(any_store, action_of(), write_files(b"one"))
    key = object_key(committed.manifest_digest)
    damage(any_store, key, b"{}")
    assert verify_store(any_store).corrupt == (key,)


def test_manifest_holds_no_clock_host_or_run(store, write_files):
    committed = materialize(store, action_of(), write_files(b"one"), run_id="run-7")
    document = json.loads(store.get_bytes(committed.manifest_digest))
    assert set(document) == {
        "schema", "asset", "partition", "fingerprint", "content", "code", "params", "environment", "inputs", "outputs",
        "stats",
    }  # fmt: skip
    assert b"run-7" not in committed.manifest.encode()
    assert Manifest.model_validate(document) == committed.manifest


def test_ref_lives_where_the_design_says(store, write_files):
    materialize(store, action_of(), write_files(b"one"))
    assert ref_key("snapshot", PARTITION) == "refs/snapshot/r1/0000.json"
    assert json.loads(store.read_key("refs/snapshot/r1/0000.json").data)["schema"] == "mm.ref/2"
