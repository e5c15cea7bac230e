"""A conditional write whose answer is lost: read back, and told apart from somebody else's write."""

import pytest

from mm_assets.errors import CommitConflictError, CommitUnknownError, StoreUnreachableError
from mm_assets.identity.canonical import digest_bytes
from mm_assets.store.manifest import content_digest
from mm_assets.store.refs import Ref, RefState, move_ref, read_ref
from mm_assets_tests.store.committing import PARTITION, action_of, materialize

OLD, NEW, OTHER = (digest_bytes(name) for name in (b"old", b"new", b"other"))


def ref(manifest, attempt):
    return Ref(
        schema="mm.ref/2", asset="snapshot", release="r1", shard="0000", manifest=manifest, fingerprint=OLD,
        content=content_digest([]), inputs=OLD, outputs=[], attempt=attempt, run_id=None,
        committed_at="2026-01-01T00:00:00+00:00", cached=False, wall_s=0.0, cpu_s=0.0,
    )  # fmt: skip


@pytest.fixture
def seen(lossy):
    """The ref as an attempt saw it before its write."""
    move_ref(lossy.direct, ref(OLD, "first"), RefState(ref=None, etag=None))
    lossy.proxy.puts = 0
    return read_ref(lossy.direct, "snapshot", PARTITION)


def current(lossy):
    return read_ref(lossy.direct, "snapshot", PARTITION).ref


def test_commit_that_lost_its_response_is_not_a_conflict(lossy, seen):
    lossy.proxy.lose_put = True
    move_ref(lossy.store, ref(NEW, "mine"), seen)
    assert current(lossy).attempt == "mine"
    assert lossy.proxy.puts == 2, "the client repeated the write, lost against its own and read it back"


def test_first_commit_that_lost_its_response_is_not_a_conflict(lossy):
    lossy.proxy.lose_put = True
    move_ref(lossy.store, ref(NEW, "mine"), RefState(ref=None, etag=None))
    assert current(lossy).attempt == "mine"


def test_somebody_elses_write_in_between_is_a_conflict(lossy, seen):
    lossy.proxy.swallow_put = True
    lossy.proxy.meanwhile = lambda: move_ref(lossy.direct, ref(OTHER, "theirs"), seen)
    with pytest.raises(CommitConflictError, match=f"attempt theirs committed first: expected to commit {NEW}"):
        move_ref(lossy.store, ref(NEW, "mine"), seen)
    assert current(lossy).attempt == "theirs"


def test_somebody_elses_write_of_the_same_manifest_is_no_conflict(lossy, seen):
    lossy.proxy.swallow_put = True
    lossy.proxy.meanwhile = lambda: move_ref(lossy.direct, ref(NEW, "theirs"), seen)
    move_ref(lossy.store, ref(NEW, "mine"), seen)
    assert current(lossy).attempt == "theirs"


def test_write_that_never_arrived_is_repeated(lossy, seen):
    lossy.proxy.swallow_put = True
    move_ref(lossy.store, ref(NEW, "mine"), seen)
    assert current(lossy).attempt == "mine"


def test_server_that_vanishes_after_the_write_is_an_error_and_the_next_run_finds_the_commit(lossy, write_files):
    state = RefState(ref=None, etag=None)
    lossy.proxy.vanish = True
    with pytest.raises((CommitUnknownError, StoreUnreachableError), match="refs/snapshot/r1/0000"):
        move_ref(lossy.store, ref(NEW, "mine"), state)
    assert current(lossy).attempt == "mine"
    committed = materialize(lossy.direct, action_of(), write_files(b"x"))
    assert current(lossy).manifest == committed.manifest_digest
