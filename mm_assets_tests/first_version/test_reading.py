"""A store that the first version wrote is read as it is."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from mm_assets.checks.rules import replace_rules
from mm_assets.cli import main
from mm_assets.configurations import CONFIGURATIONS, ReleaseRequest, open_named_release
from mm_assets.errors import CheckError, ObjectCorruptError
from mm_assets.evaluation.rows import read_columns
from mm_assets.identity.canonical import digest_bytes
from mm_assets.lineage.explain import explain_sample
from mm_assets.lineage.trace import trace_model, trace_sample
from mm_assets.lineage.verify import verify_store
from mm_assets.materialize import Workspace
from mm_assets.pipeline import ASSETS, PROMOTION_RULES
from mm_assets.promotion.chain import read_history, read_production
from mm_assets.promotion.comparison import COLUMNS, compare_with_champion
from mm_assets.promotion.config import Production
from mm_assets.promotion.decision import read_decision
from mm_assets.promotion.record import UNNUMBERED, registry_key
from mm_assets.release.shards import places, read_shards
from mm_assets.releases.spec import read_spec
from mm_assets.store.manifest import FIRST_SCHEMA, read_manifest
from mm_assets.store.objects import Store, object_key
from mm_assets.store.refs import list_refs, read_ref
from mm_assets_tests.first_version.readers import EMOJI, FIRST, first_sample, manifest_of
from mm_assets_tests.stores import LENIENT_PROMOTION, delete, flip_byte, only, write


def mm(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    status = main([*arguments, "--json"])
    answer = capsys.readouterr()
    assert status == 0, answer.err
    return json.loads(answer.out.splitlines()[-1])


def test_every_ref_and_manifest_is_read(v1_store: Store) -> None:
    refs = list(list_refs(v1_store))
    assert sorted({ref.asset for ref in refs}) == sorted(set(ASSETS) - {"registration"})
    for ref in refs:
        manifest = read_manifest(v1_store, ref.manifest)
        assert manifest.schema_ == FIRST_SCHEMA
        assert (ref.content, ref.outputs) == (manifest.content, manifest.outputs)
        assert (manifest.asset, manifest.partition) == (ref.asset, ref.partition)


def test_the_spec_is_translated(v1_store: Store) -> None:
    spec = read_spec(v1_store, "r1")
    assert [(pin.source, pin.drop) for pin in spec.drops] == list(EMOJI)
    assert (spec.num_shards, spec.data_of, spec.rules) == (2, None, {})
    assert spec.configuration["name"] == "smoke"
    smoke = CONFIGURATIONS["smoke"]
    for section in ("snapshot", "features", "encoder", "release", "plan", "training", "evaluation"):
        assert spec.config(section, type(getattr(smoke, section))) == getattr(smoke, section)
    assert spec.configuration["placement"]["log_every"] == 4


def test_the_registry_and_its_decision_are_read(v1_store: Store) -> None:
    production = read_production(v1_store)
    assert production is not None
    assert (production.release, production.sequence) == ("r1", UNNUMBERED)
    assert production.model == read_ref(v1_store, "model", only("r1")).ref.manifest  # pyright: ignore[reportOptionalMemberAccess]
    decision = read_decision(v1_store, read_manifest(v1_store, production.decision))
    assert (decision.decision, decision.state, decision.champion) == ("promoted", "production", None)
    assert [record.release for record in read_history(v1_store, "candidate")] == ["r1"]


def test_the_shards_and_their_places_are_read(v1_store: Store) -> None:
    manifest = manifest_of(v1_store, "dataset_release", "r1")
    _, shards = read_shards(v1_store, manifest)
    assert [shard.generation for shard in shards] == [0, 0]
    assert [place.path for place in places(v1_store, manifest)] == ["r1/0000", "r1/0001"]


def test_verify_finds_nothing_wrong(v1_store: Store) -> None:
    report = verify_store(v1_store)
    assert report.is_sound, report.reasons
    manifests = [read_manifest(v1_store, ref.manifest) for ref in list_refs(v1_store)]
    named = {ref.manifest for ref in list_refs(v1_store)}
    named |= {output.digest for manifest in manifests for output in manifest.outputs}
    raw = [key for key in FIRST if key.startswith("raw/") and key.endswith(".tar")]
    assert report.objects >= len(named) + len(raw)


@pytest.mark.parametrize(
    "named",
    [
        lambda store: manifest_of(store, "model", "r1").output("weights.safetensors").digest,
        lambda store: manifest_of(store, "dataset_release", "r1").output("shards.json").digest,
        lambda store: next(read_history(store, "production")).decision,
    ],
)
def test_verify_names_a_damaged_object(v1_store: Store, named: Callable[[Store], str]) -> None:
    key = object_key(named(v1_store))
    flip_byte(v1_store, key)
    assert key in verify_store(v1_store).corrupt
    delete(v1_store, key)
    assert key in verify_store(v1_store).missing


def test_verify_names_a_damaged_raw_object(v1_store: Store) -> None:
    flip_byte(v1_store, "raw/emoji/2026-11/emoji-0003.tar")
    assert verify_store(v1_store).corrupt == ("raw/emoji/2026-11/emoji-0003.tar",)


def test_a_model_and_a_sample_are_traced(v1_store: Store) -> None:
    production = trace_model(v1_store, "production")
    assert production == trace_model(v1_store, "r1")
    assert production["snapshot_shards"] == ["r1/0000", "r1/0001"]
    assert production["drops"] == ["emoji/2026-11"]
    row = first_sample(v1_store)
    trace = trace_sample(v1_store, row["id"])
    assert trace["shards"] == [f"r1/{row['shard']}"]
    assert trace["releases"] == ["r1"]
    assert trace["models"] == [production["model"]]
    assert trace["steps"]


def test_a_sample_is_explained(v1_store: Store) -> None:
    row = first_sample(v1_store)
    answer = explain_sample(v1_store, "r1", row["id"])
    assert (answer["selected"], answer["split"], answer["shard"]) == (True, "train", f"r1/{row['shard']}")
    assert answer["signals"]


@pytest.mark.usefixtures("v1_store", "moto_settings")
def test_the_commands_work_on_it(capsys: pytest.CaptureFixture[str]) -> None:
    listed = mm(capsys, "release", "list")
    assert listed["release"] == ["r1"]
    shown = mm(capsys, "release", "show", "r1")
    assert shown["stages"]["model"] == {"state": "unchecked", "done": 1, "total": 1}
    assert shown["stages"]["registration"]["state"] == "missing"
    rules = mm(capsys, "rules", "show", "--release", "r1")["rules"]
    assert set(rules) == {"snapshot.yaml", "features.yaml", "promotion.yaml"}
    assert mm(capsys, "trace", "--model", "production")["release"] == "r1"
    assert mm(capsys, "verify")["corrupt"] == []


def test_opening_it_again_with_the_same_arguments_changes_nothing(workspace: Workspace) -> None:
    before = workspace.store.read_key("releases/r1/spec.json")
    spec = open_named_release(workspace, ReleaseRequest(release="r1", drops=EMOJI, configuration="smoke"))
    assert spec == read_spec(workspace.store, "r1")
    after = workspace.store.read_key("releases/r1/spec.json")
    assert before is not None
    assert after is not None
    assert after.data == before.data


def test_a_release_that_failed_its_check_then_is_no_parent_now(workspace: Workspace) -> None:
    key = "refs/validations/dataset_release/r1.json"
    current = workspace.store.read_key(key)
    assert current is not None
    write(workspace.store, key, current.data.replace(b'"passed":true', b'"passed":false'))
    with pytest.raises(CheckError, match="dataset_release r1"):
        open_named_release(workspace, ReleaseRequest(release="r2", drops=EMOJI, parent="r1", configuration="smoke"))
    with pytest.raises(CheckError, match="dataset_release r1"):
        open_named_release(workspace, ReleaseRequest(release="e1", data_of="r1"))


def test_a_damaged_head_is_never_taken_for_an_empty_one(v1_store: Store) -> None:
    """There are no numbered entries yet that it could be repaired from."""
    write(v1_store, registry_key("production"), b"{}")
    assert registry_key("production") in verify_store(v1_store).corrupt
    with pytest.raises(ObjectCorruptError, match="production"):
        read_production(v1_store)


def test_a_damaged_manifest_is_blamed_and_not_its_ref(v1_store: Store) -> None:
    ref = read_ref(v1_store, "model", only("r1")).ref
    assert ref is not None
    flip_byte(v1_store, object_key(ref.manifest))
    with pytest.raises(ObjectCorruptError, match=f"{ref.manifest.removeprefix('sha256:')}: bytes do not match"):
        read_ref(v1_store, "model", only("r1"))


def test_replacing_one_of_its_rules_pins_the_others(workspace: Workspace) -> None:
    files = {PROMOTION_RULES: LENIENT_PROMOTION.encode()}
    rules = workspace.rules("r1")
    record = replace_rules(workspace.store, "r1", rules, files, reason="nine emoji teach nothing", by="test")
    assert record.rules == {**rules.digests, PROMOTION_RULES: digest_bytes(files[PROMOTION_RULES])}
    assert verify_store(workspace.store).is_sound


def test_its_predictions_can_be_compared_with(v1_store: Store) -> None:
    digest = manifest_of(v1_store, "evaluation", "r1").output("predictions.parquet").digest
    predictions = read_columns(v1_store, digest, list(COLUMNS))
    found = compare_with_champion(predictions, predictions, Production(confidence=0.95, min_samples=1, max_loss=0.0))
    assert (found.outcome, found.num_shared, found.difference) == ("not_worse", 4, 0.0)
