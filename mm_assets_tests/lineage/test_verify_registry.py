"""``mm verify`` follows the registry back to its first record, and open releases down to their raw objects."""

import json

import pytest

from mm_assets.checks.rules import replace_rules, rules_in_force
from mm_assets.drops.record import Drop, DropObject
from mm_assets.identity.canonical import canonical_json, digest_bytes, digest_json
from mm_assets.lineage.verify import verify_store
from mm_assets.promotion.chain import first_bytes
from mm_assets.promotion.record import entry_key, first_key, registry_key
from mm_assets.promotion.registry import register
from mm_assets.promotion.superseded import superseded_key
from mm_assets.releases.evaluation_sets import name_evaluation_set
from mm_assets.releases.policies import add_policy, policy_key
from mm_assets.releases.spec import DropPin, ReleasePin, ReleaseSpec, write_spec
from mm_assets.store.action import Action
from mm_assets.store.commit import Attempt, OutputFile, StageResult
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import object_key
from mm_assets_tests.by_hand import open_by_hand
from mm_assets_tests.stores import delete, write

HEAD = registry_key("production")


class World:
    """Commits promotions with real upstream manifests and damages the store."""

    def __init__(self, store, folder):
        self.store, self.folder = store, folder

    def commit(self, asset, release, name, data, inputs=()):
        path = self.folder / name
        path.write_bytes(data)
        action = Action(
            asset=asset,
            code=digest_json("code"),
            params={"data": digest_bytes(data)},
            environment={},
            inputs=tuple(inputs),
        )
        file = OutputFile(name=name, path=path, media_type="application/octet-stream")
        return Attempt(self.store, action, Partition(release=release)).commit_result(
            StageResult(files=(file,), stats={})
        )

    def promotion(self, release, state="production"):
        data = {asset: f"{asset} {release}".encode() for asset in ("model", "dataset_release", "evaluation")}
        inputs = [self.commit(asset, release, "file", content).ref.as_input("file") for asset, content in data.items()]
        decision = {
            # Of the first version, whose evidence is not decided by again: this evidence is made up.
            "schema": "mm.decision/1",
            "decision": "rejected" if state == "none" else "promoted",
            "state": state,
            **{entry.asset: entry.manifest for entry in inputs},
            "thresholds": digest_json("thresholds"),
            "gates": [],
        }
        return self.commit("promotion", release, "decision.json", canonical_json(decision), inputs)

    def register(self, release, state="production"):
        committed = self.promotion(release, state)
        register(self.store, committed.manifest, committed.manifest_digest)
        return committed

    def delete(self, key):
        self.store.client.delete_object(Bucket=self.store.bucket, Key=f"{self.store.prefix}/{key}")

    def write(self, key, data):
        self.store.client.put_object(Bucket=self.store.bucket, Key=f"{self.store.prefix}/{key}", Body=data)

    def read(self, key):
        return self.store.read_key(key).data


@pytest.fixture
def world(store, tmp_path):
    return World(store, tmp_path)


@pytest.fixture
def registered(world):
    world.register("r1")
    world.register("r2")
    assert verify_store(world.store).is_sound
    return world


def test_a_lost_earlier_record_is_missing(registered):
    gone = object_key(digest_bytes(registered.read(entry_key("production", 1))))
    registered.delete(gone)
    assert verify_store(registered.store).missing == (gone,)


def test_a_damaged_earlier_record_is_corrupt(registered):
    key = object_key(digest_bytes(registered.read(entry_key("production", 1))))
    registered.write(key, b"x")
    assert verify_store(registered.store).corrupt == (key,)


def test_a_registered_model_whose_ref_is_gone_is_still_verified(world):
    committed = world.register("r1")
    model = committed.manifest.input("model").manifest
    world.delete("refs/model/r1.json")
    world.delete("refs/evaluation/r1.json")
    world.delete("refs/promotion/r1.json")
    world.delete(object_key(model))
    assert verify_store(world.store).missing == (object_key(model),)


def test_a_deleted_head_is_missing(registered):
    registered.delete(HEAD)
    report = verify_store(registered.store)
    assert (report.corrupt, report.missing) == ((), (HEAD,))
    assert report.reasons[HEAD] == "its key was deleted"


@pytest.mark.parametrize("number", [1, 2])
def test_a_head_that_is_an_older_record_or_none_at_all_is_corrupt(registered, number):
    registered.write(HEAD, registered.read(entry_key("production", 1)) if number == 1 else b"{}")
    assert verify_store(registered.store).corrupt == (HEAD,)


def test_a_damaged_head_without_numbered_entries_is_corrupt_and_stops_nothing_else(world):
    world.promotion("r1")
    world.write(HEAD, b"{}")
    report = verify_store(world.store)
    assert (report.corrupt, report.missing) == ((HEAD,), ())
    assert report.objects == 8


def test_a_numbered_entry_that_is_gone_is_missing(registered):
    registered.delete(entry_key("production", 1))
    assert verify_store(registered.store).missing == (entry_key("production", 1),)


def test_a_numbered_entry_that_is_something_else_is_corrupt(registered):
    registered.write(entry_key("production", 1), registered.read(entry_key("candidate", 1)))
    assert verify_store(registered.store).corrupt == (entry_key("production", 1),)


def test_a_key_of_a_release_that_is_gone_is_missing(registered):
    registered.delete(first_key("production", "r1"))
    assert verify_store(registered.store).missing == (first_key("production", "r1"),)


def test_a_key_of_a_release_that_names_another_record_is_corrupt(registered):
    registered.write(first_key("production", "r1"), first_bytes(2))
    registered.write(first_key("production", "r9"), first_bytes(1))
    expected = (first_key("production", "r1"), first_key("production", "r9"))
    assert verify_store(registered.store).corrupt == expected


def test_marks_of_superseded_releases_are_compared_with_the_lines(world):
    for number in range(3):
        pin = ReleasePin(release=f"r{number - 1}", digest=digest_json(number)) if number else None
        open_by_hand(world.store, f"r{number}", parent=pin)
    for release in ("r2", "other"):
        world.register(release)
    gone, forged = (superseded_key("production", name) for name in ("r0", "other"))
    sound = verify_store(world.store)
    world.delete(gone)
    world.write(forged, b"{}")
    report = verify_store(world.store)
    assert set(report.missing) - set(sound.missing) == {gone}
    assert set(report.corrupt) - set(sound.corrupt) == {forged}


def test_a_numbered_entry_beyond_the_head_is_corrupt(registered):
    registered.write(entry_key("production", 7), b"{}")
    assert verify_store(registered.store).corrupt == (entry_key("production", 7),)


def forge(world, **changes):
    """Moves the head on as a registration does, with a record that lies."""
    last = world.read(HEAD)
    record = json.loads(last)
    record |= {"sequence": record["sequence"] + 1, "previous": digest_bytes(last)} | changes
    data = canonical_json(record)
    world.store.put_bytes(data)
    world.write(HEAD, data)
    world.write(entry_key("production", record["sequence"]), data)
    return entry_key("production", record["sequence"])


def named(committed):
    model, release = (committed.manifest.input(name).manifest for name in ("model", "dataset_release"))
    return {"model": model, "dataset_release": release, "decision": committed.manifest_digest}


def test_a_forged_record_of_a_rejected_decision_is_corrupt(registered):
    key = forge(registered, release="r3", **named(registered.promotion("r3", state="none")))
    report = verify_store(registered.store)
    assert (report.corrupt, report.missing) == ((key,), ())
    assert "says rejected to none: expected production" in report.reasons[key]


def test_a_forged_record_of_a_decision_for_less_is_corrupt(registered):
    key = forge(registered, release="r3", **named(registered.promotion("r3", state="candidate")))
    assert "says promoted to candidate: expected production" in verify_store(registered.store).reasons[key]


@pytest.mark.parametrize("field", ["model", "dataset_release"])
def test_a_forged_record_of_another_model_than_its_decision_is_corrupt(registered, field):
    other = registered.promotion("r3")
    key = forge(registered, **{field: other.manifest.input(field).manifest})
    report = verify_store(registered.store)
    assert report.corrupt == (key,)
    assert report.reasons[key].startswith(f"its {field} is sha256:")


def test_a_forged_record_whose_decision_is_no_promotion_is_corrupt(registered):
    model = json.loads(registered.read(HEAD))["model"]
    key = forge(registered, decision=model)
    report = verify_store(registered.store)
    assert report.corrupt == (key,)
    assert "is model r2: expected a promotion" in report.reasons[key]


def test_a_forged_record_without_a_numbered_entry_is_corrupt(registered):
    key = forge(registered, release="r3", **named(registered.promotion("r3", state="none")))
    registered.delete(key)
    assert verify_store(registered.store).corrupt == (HEAD,)


def test_a_registry_of_the_first_version_is_sound(world):
    committed = world.promotion("r1")
    record = {"schema": "mm.production/1", "state": "production", "release": "r1", "previous": None}
    first = canonical_json(record | named(committed))
    world.write(HEAD, canonical_json(record | named(committed) | {"previous": world.store.put_bytes(first)}))
    assert verify_store(world.store).is_sound


@pytest.fixture
def opened(world):
    """An open release that pins a drop of one raw object, with nothing materialized yet."""
    world.write("raw/zoo/d1/a.tar", b"raw bytes")
    raw = DropObject(key="a.tar", size_bytes=9, sha256=digest_bytes(b"raw bytes").removeprefix("sha256:"))
    drop = Drop(
        schema="mm.drop/1", source="zoo", drop="d1", captured_from=None, captured_to=None, format="webdataset",
        objects=[raw], annotation={},
    )  # fmt: skip
    pin = DropPin(
        source="zoo",
        drop="d1",
        digest=world.store.put_bytes(drop.encode()),
        source_digest=world.store.put_bytes(b"source: zoo"),
    )
    spec = ReleaseSpec(
        schema="mm.release/2", release="r1", drops=[pin], parent=None, data_of=None, exclusions=[], policy={}, rules={},
        encoder={}, seed=0, num_shards=1, configuration={},
    )  # fmt: skip
    write_spec(world.store, spec)
    assert verify_store(world.store).objects == 3
    return world, pin


def test_raw_objects_that_an_open_release_pins_are_read(opened):
    world, _ = opened
    world.write("raw/zoo/d1/a.tar", b"raw bytez")
    assert verify_store(world.store).corrupt == ("raw/zoo/d1/a.tar",)
    world.delete("raw/zoo/d1/a.tar")
    assert verify_store(world.store).missing == ("raw/zoo/d1/a.tar",)


def test_the_description_of_a_source_that_an_open_release_pins_is_read(opened):
    world, pin = opened
    world.write(object_key(pin.source_digest), b"source: cat")
    assert verify_store(world.store).corrupt == (object_key(pin.source_digest),)


def test_rules_and_encoder_that_an_open_release_pins_are_read(opened):
    world, pin = opened
    pinned = [world.store.put_bytes(data) for data in (b"rules", b"encoder")]
    spec = ReleaseSpec(
        schema="mm.release/2", release="r2", drops=[pin], parent=None, data_of=None, exclusions=[], policy={},
        rules={"snapshot.yaml": pinned[0]}, encoder={"kind": "k", "digest": pinned[1]}, seed=0, num_shards=1,
        configuration={},
    )  # fmt: skip
    write_spec(world.store, spec)
    rules = rules_in_force(world.store, "r2", spec.rules, {})
    replace_rules(world.store, "r2", rules, {"snapshot.yaml": b"replaced"}, reason="audit", by="ada")
    assert verify_store(world.store).is_sound
    keys = sorted(object_key(digest) for digest in (*pinned, digest_bytes(b"replaced")))
    for key in keys:
        world.delete(key)
    assert verify_store(world.store).missing == tuple(keys)


def test_a_forged_manifest_that_its_action_did_not_lead_to_is_corrupt(world):
    honest, other = world.commit("model", "r1", "file", b"honest"), world.commit("model", "r2", "file", b"other")
    forged = honest.manifest.model_copy(
        update={"outputs": other.manifest.outputs, "content": other.manifest.content}
    ).encode()
    named = {"manifest": world.store.put_bytes(forged), "content": other.manifest.content}
    ref = honest.ref.model_copy(update={**named, "outputs": other.manifest.outputs})
    world.write("refs/model/r1.json", canonical_json(ref.model_dump(by_alias=True)))
    report = verify_store(world.store)
    assert report.corrupt == ("refs/model/r1.json",)
    assert "are not those of its action" in report.reasons["refs/model/r1.json"]


def test_an_experiments_data_are_read(opened):
    world, _ = opened
    frozen = world.commit("dataset_release", "r0", "file", b"frozen")
    spec = ReleaseSpec(
        schema="mm.release/2", release="x", drops=[], parent=None, exclusions=[], policy={}, rules={}, encoder={},
        data_of=ReleasePin(release="r0", digest=frozen.manifest_digest), seed=0, num_shards=0, configuration={},
    )  # fmt: skip
    write_spec(world.store, spec)
    world.delete("refs/dataset_release/r0.json")
    gone = object_key(frozen.manifest.output("file").digest)
    world.delete(gone)
    assert verify_store(world.store).missing == (gone,)


def test_a_spec_that_cannot_be_read_is_corrupt(opened):
    world, _ = opened
    world.write("releases/r1/spec.json", b"{}")
    assert verify_store(world.store).corrupt == ("releases/r1/spec.json",)


def test_each_damaged_entry_of_a_policy_an_encoder_or_an_evaluation_set_is_named(store):
    """One that cannot be read hides no other, and what a good one names is re-hashed."""
    named = store.put_bytes(b"keys")
    name_evaluation_set(store, ReleasePin(release="good", digest=named), reason="ours", by="ada")
    for number in (1, 2):
        add_policy(store, f"p{number}", "p.sql", b"TRUE", by="ada")
    policies = [policy_key(f"p{number}", 1) for number in (1, 2)]
    assert store.create_key("encoders/e.json", b"{}")
    assert store.create_key("evaluation_sets/bad.json", b"{}")
    for key in policies:
        write(store, key, b"{}")
    delete(store, object_key(named))
    report = verify_store(store)
    assert report.corrupt == ("encoders/e.json", "evaluation_sets/bad.json", *policies)
    assert report.missing == (object_key(named),)
