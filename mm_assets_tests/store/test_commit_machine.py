"""The law of commits: interrupted anywhere, a partition is what it was or what it was to become, never a mix.

Of attempts that overlap, one that saw a partition before another one moved it commits nothing, unless both are alike.
"""

import tempfile
import uuid
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from mm_assets.errors import CommitConflictError
from mm_assets.identity.canonical import digest_bytes
from mm_assets.store.action import find_action
from mm_assets.store.client import make_client
from mm_assets.store.commit import Attempt
from mm_assets.store.manifest import content_digest, read_manifest
from mm_assets.store.objects import Store, object_key
from mm_assets.store.refs import read_ref
from mm_assets_tests.conftest import MOTO_KEYS
from mm_assets_tests.store.committing import PARTITION, action_of, counted_writes, delete, flip, materialize, writing

NAMES = ("first", "second")
NUMBERS = st.integers(0, 3)
#: More than the writes of a commit: two outputs, manifest, action, ref.
MAX_WRITES = 6


class Interrupted(Exception):
    """The process ends here."""


def files_of(number):
    return {name: f"{name} of {number}".encode() for name in NAMES}


class CommitMachine(RuleBasedStateMachine):
    """Attempts that end at any write or overlap, and objects that are damaged, on a server at ``endpoint``."""

    endpoint, bucket = "", ""
    credentials = MOTO_KEYS
    attempts = Bundle("attempts")

    def __init__(self):
        super().__init__()
        # boto3's own event system ends the attempt at its n-th write, before it is sent or after it landed.
        self.client = make_client(self.endpoint, self.credentials)
        self.client.meta.events.register("before-call.s3.PutObject", lambda **_: self.write("before"))
        self.client.meta.events.register("after-call.s3.PutObject", lambda **_: self.write("after"))
        self.left, self.when = None, ""
        self.store = Store(client=self.client, bucket=self.bucket, prefix=uuid.uuid4().hex)
        self.possible = {None}
        self.damaged = set()

    def write(self, when):
        if self.left is None or when != self.when:
            return
        self.left -= 1
        if self.left < 0:
            raise Interrupted

    def attempt(self, number):
        with tempfile.TemporaryDirectory() as folder:
            return materialize(self.store, action_of(number), writing(Path(folder), files_of(number), stats={}))

    def repaired(self, number):
        """The objects that an attempt at ``number`` has put right."""
        self.damaged -= {(number, name) for name in NAMES}

    def is_whole(self, number, name):
        data = files_of(number)[name]
        current = self.store.read_key(object_key(digest_bytes(data)))
        return current is not None and current.data == data

    @rule(number=NUMBERS)
    def commit(self, number):
        committed = self.attempt(number)
        self.possible = {number}
        self.repaired(number)
        assert committed.manifest.content == content_digest(committed.manifest.outputs)

    @rule(number=NUMBERS, writes=st.integers(0, MAX_WRITES), when=st.sampled_from(["before", "after"]))
    def commit_interrupted(self, number, writes, when):
        self.left, self.when = writes, when
        try:
            self.attempt(number)
        except Interrupted:
            self.possible |= {number}
            # An object is put right when it is written, which may or may not have been before the end.
            self.damaged = {(n, name) for n, name in self.damaged if not self.is_whole(n, name)}
        else:
            self.possible = {number}
            self.repaired(number)
        finally:
            self.left = None

    @rule(target=attempts, number=NUMBERS)
    def begin(self, number):
        return number, Attempt(self.store, action_of(number), PARTITION), self.ref()

    @rule(begun=consumes(attempts), writes=st.integers(0, MAX_WRITES), is_interrupted=st.booleans())
    def finish(self, begun, writes, is_interrupted):
        number, attempt, seen = begun
        before = self.ref()
        is_overtaken = before != seen and (before is None or self.number_of(before) != number)
        self.left, self.when = (writes, "before") if is_interrupted else (None, "")
        try:
            with tempfile.TemporaryDirectory() as folder:
                attempt.commit_result(writing(Path(folder), files_of(number), stats={})())
        except Interrupted:
            assert self.ref() == before
        except CommitConflictError:
            assert is_overtaken
            assert self.ref() == before
        else:
            assert not is_overtaken
            self.possible = {number}
        finally:
            self.left = None
            self.damaged = {(n, name) for n, name in self.damaged if not self.is_whole(n, name)}

    @rule(number=NUMBERS, name=st.sampled_from(NAMES), how=st.sampled_from(["flip", "delete"]))
    def damage(self, number, name, how):
        digest = digest_bytes(files_of(number)[name])
        if (number, name) in self.damaged or not self.store.has_object(digest):
            return
        if how == "flip":
            flip(self.store, digest)
        else:
            delete(self.store, object_key(digest))
        self.damaged.add((number, name))

    @rule(number=NUMBERS)
    def find(self, number):
        with counted_writes(self.store) as writes:
            found = find_action(self.store, action_of(number))
        assert writes == []
        if found is not None:
            assert {o.name: self.store.get_bytes(o.digest) for o in found.outputs} == files_of(number)

    def ref(self):
        return read_ref(self.store, "snapshot", PARTITION).ref

    def number_of(self, ref):
        return read_manifest(self.store, ref.manifest).params["p"]

    @invariant()
    def partition_is_one_whole_commit(self):
        ref = self.ref()
        number = None
        if ref is not None:
            manifest = read_manifest(self.store, ref.manifest)
            number = manifest.params["p"]
            assert [(o.name, o.digest) for o in ref.outputs] == [
                (name, digest_bytes(data)) for name, data in files_of(number).items()
            ]
            assert manifest.outputs == ref.outputs
            assert ref.fingerprint == action_of(number).fingerprint
            for name, data in files_of(number).items():
                if (number, name) not in self.damaged:
                    assert self.store.get_bytes(digest_bytes(data)) == data
        assert number in self.possible
        self.possible = {number}


@pytest.mark.property
def test_interrupted_commit_leaves_the_old_or_the_new_manifest(moto_endpoint):
    bucket = f"b-{uuid.uuid4().hex}"
    make_client(moto_endpoint, MOTO_KEYS).create_bucket(Bucket=bucket)
    machine = type("Commits", (CommitMachine,), {"endpoint": moto_endpoint, "bucket": bucket})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=12, stateful_step_count=12, deadline=None, database=None)
    )


@pytest.mark.property
@pytest.mark.integration
@pytest.mark.slow
def test_the_same_on_a_real_server(seaweed_server):
    keys = {"access_key": seaweed_server.access_key, "secret_key": seaweed_server.secret_key}
    place = {"endpoint": seaweed_server.endpoint, "credentials": keys, "bucket": seaweed_server.bucket}
    machine = type("RealCommits", (CommitMachine,), place)
    run_state_machine_as_test(
        machine, settings=settings(max_examples=60, stateful_step_count=20, deadline=None, database=None)
    )
