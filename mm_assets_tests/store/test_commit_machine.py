"""The law of commits: interrupted anywhere, a partition is what it was or what it was to become, never a mix."""

import tempfile
import uuid
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from mm_assets.identity.canonical import digest_bytes
from mm_assets.store.client import make_client
from mm_assets.store.commit import OutputFile, StageResult, materialize
from mm_assets.store.manifest import Partition, Recipe, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.refs import read_ref

PARTITION = Partition(release="r1", shard="0000")
#: More than the writes of a commit: two outputs, manifest, action, ref.
MAX_WRITES = 6


class Interrupted(Exception):
    """The process ends here."""


def recipe(content):
    return Recipe(
        asset="snapshot", partition=PARTITION, code=digest_bytes(b"c"), params={"content": content}, environment={},
        inputs=(),
    )  # fmt: skip


class CommitMachine(RuleBasedStateMachine):
    """Attempts that end at any write, on a server at ``endpoint``."""

    endpoint = ""

    def __init__(self):
        super().__init__()
        # boto3's own event system ends the attempt at its n-th write, before it is sent or after it landed.
        self.client = make_client(self.endpoint, {"access_key": "test", "secret_key": "test"})
        self.client.meta.events.register("before-call.s3.PutObject", lambda **_: self.write("before"))
        self.client.meta.events.register("after-call.s3.PutObject", lambda **_: self.write("after"))
        self.left, self.when = None, ""
        bucket = f"b-{uuid.uuid4().hex}"
        self.client.create_bucket(Bucket=bucket)
        self.store = Store(client=self.client, bucket=bucket, prefix="p")
        self.possible = {None}

    def write(self, when):
        if self.left is None or when != self.when:
            return
        self.left -= 1
        if self.left < 0:
            raise Interrupted

    def attempt(self, content):
        with tempfile.TemporaryDirectory() as folder:

            def compute():
                files = []
                for name in ("first", "second"):
                    path = Path(folder) / name
                    path.write_text(f"{name} of {content}", encoding="utf-8")
                    files.append(OutputFile(name=name, path=path, media_type="text/plain"))
                return StageResult(files=tuple(files), stats={})

            materialize(self.store, recipe(content), compute)

    @rule(content=st.integers(0, 3))
    def commit(self, content):
        self.attempt(content)
        self.possible = {content}

    @rule(content=st.integers(0, 3), writes=st.integers(0, MAX_WRITES), when=st.sampled_from(["before", "after"]))
    def commit_interrupted(self, content, writes, when):
        self.left, self.when = writes, when
        try:
            self.attempt(content)
        except Interrupted:
            self.possible |= {content}
        else:
            self.possible = {content}
        finally:
            self.left = None

    @invariant()
    def partition_is_one_whole_commit(self):
        ref = read_ref(self.store, "snapshot", PARTITION).ref
        content = None
        if ref is not None:
            manifest = read_manifest(self.store, ref.manifest)
            content = manifest.params["content"]
            for output in manifest.outputs:
                assert self.store.get_bytes(output.digest).decode() == f"{output.name} of {content}"
            assert ref.fingerprint == recipe(content).fingerprint
        assert content in self.possible
        self.possible = {content}


@pytest.mark.property
def test_interrupted_commit_leaves_the_old_or_the_new_manifest(moto_endpoint):
    machine = type("Commits", (CommitMachine,), {"endpoint": moto_endpoint})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=8, stateful_step_count=8, deadline=None, database=None)
    )
