"""From committed inputs to a decision, a card, a check of both, and the move of the registry behind it."""

import json
from collections.abc import Callable

import pytest
from huggingface_hub import ModelCard

from mm_assets.checks.rules import replace_rules
from mm_assets.checks.validations import Finding
from mm_assets.errors import CheckError, ObjectCorruptError, SettingsError
from mm_assets.evaluation.report import Report
from mm_assets.identity.canonical import canonical_json, digest_json
from mm_assets.materialize import Workspace, packaged_rules
from mm_assets.promotion.chain import read_history, read_production, read_registry
from mm_assets.promotion.config import THRESHOLDS_FILE
from mm_assets.promotion.decide import CHAMPION
from mm_assets.promotion.decision import read_decision
from mm_assets.promotion.history import validate_registration
from mm_assets.promotion.preview import preview
from mm_assets.promotion.validate import validate_promotion
from mm_assets.releases.spec import ReleaseSpec
from mm_assets.settings import Settings
from mm_assets.store.commit import Committed
from mm_assets.store.manifest import Input, Manifest, Partition
from mm_assets.store.objects import Store, object_key
from mm_assets.store.refs import require_ref
from mm_assets_tests.by_hand import judge_by_hand

Promote = Callable[..., Committed]
ReportOf = Callable[..., Report]
R1 = Partition(release="r1")


def findings(workspace: Workspace, manifest: Manifest) -> dict[str, Finding]:
    rules = workspace.rules(manifest.partition.release)
    return {finding.rule: finding for finding in validate_promotion(workspace.store, manifest, rules)}


def output(store: Store, manifest: Manifest, name: str) -> bytes:
    return store.get_bytes(manifest.output(name).digest)


def register(workspace: Workspace, committed: Committed) -> Committed:
    """Checks a promotion and materializes the registration behind it."""
    partition = committed.manifest.partition
    assert workspace.check("promotion", partition).passed
    return workspace.run("registration", partition, environment={})


def judged(workspace: Workspace, registration: Committed) -> Finding:
    rules = workspace.rules(registration.manifest.partition.release)
    (finding,) = validate_registration(workspace.store, registration.manifest, rules)
    return finding


def champion_of(workspace: Workspace, release: str) -> dict[str, Input]:
    action = workspace.resolve("promotion", Partition(release=release), {})
    return {entry.asset: entry for entry in action.inputs if entry.role == CHAMPION}


def delete(store: Store, prefix: str) -> None:
    for info in list(store.list_keys(prefix)):
        store.client.delete_object(Bucket=store.bucket, Key=f"{store.prefix}/{info.key}")


def test_a_good_model_is_promoted_registered_and_sound(
    store: Store, workspace: Workspace, promote: Promote, report_of: ReportOf
) -> None:
    committed = promote("r1", report_of())
    decision = json.loads(output(store, committed.manifest, "decision.json"))
    assert set(decision) == {
        "schema", "decision", "state", "model", "dataset_release", "evaluation", "thresholds", "champion",
        "comparison", "gates",
    }  # fmt: skip
    assert (decision["decision"], decision["state"]) == ("promoted", "production")
    assert decision["thresholds"] == digest_json(committed.manifest.params["thresholds"])
    assert decision["champion"] is None
    assert decision["comparison"] == {
        "outcome": "no_champion", "reason": "no model is in production", "num_shared": 0, "difference": None,
        "interval": None,
    }  # fmt: skip
    assert decision["model"] == require_ref(store, "model", R1).output("weights.safetensors").digest
    assert all(finding.passed for finding in findings(workspace, committed.manifest).values())
    assert "**Promoted** to **production**" in preview(store, committed.manifest)
    assert read_production(store) is None, "a decision moves nothing"
    registration = register(workspace, committed)
    production = read_production(store)
    assert production is not None
    assert (production.model, production.decision) == (
        require_ref(store, "model", R1).manifest,
        committed.manifest_digest,
    )
    document = json.loads(output(store, registration.manifest, "registration.json"))
    assert (document["moved"], document["reason"]) == (
        ["candidate", "production"],
        "registered for candidate and production",
    )
    assert workspace.check("registration", R1).passed


def test_a_rejected_model_materializes_passes_its_check_and_moves_nothing(
    store: Store, workspace: Workspace, promote: Promote, report_of: ReportOf
) -> None:
    committed = promote("r1", report_of(overall=0.3))
    registration = register(workspace, committed)
    assert committed.manifest.stats["num_failed_gates"] == 1
    assert read_production(store) is None
    assert registration.manifest.stats == {"moved": [], "reason": "the decision is a rejection"}
    assert workspace.check("registration", R1).passed
    found = findings(workspace, committed.manifest)
    assert all(finding.passed for finding in found.values())
    assert "rejected: overall_balanced_accuracy" in found["decision_follows_gates"].detail
    assert (
        "It was rejected: overall_balanced_accuracy failed." in output(store, committed.manifest, "README.md").decode()
    )


def test_a_registration_waits_for_the_check_of_its_promotion(
    store: Store, workspace: Workspace, promote: Promote, report_of: ReportOf
) -> None:
    promote("r1", report_of())
    with pytest.raises(CheckError, match="promotion r1: was not checked under the rules in force"):
        workspace.run("registration", R1, environment={})
    judge_by_hand(workspace, "promotion", R1, problem="the model card lacks its metadata")
    with pytest.raises(CheckError, match="promotion r1: failed its check: the model card lacks"):
        workspace.run("registration", R1, environment={})
    assert read_registry(store, "candidate") is None


def test_a_registration_repeated_makes_the_same_bytes_and_moves_nothing(
    store: Store, workspace: Workspace, promote: Promote, report_of: ReportOf
) -> None:
    committed = promote("r1", report_of())
    first = register(workspace, committed)
    again = register(workspace, committed)
    assert again.manifest_digest == first.manifest_digest
    assert len(list(read_history(store, "production"))) == 1
    workspace.check("registration", R1)
    assert workspace.find_current("registration", R1, {}) == require_ref(store, "registration", R1)


@pytest.mark.parametrize("name", ["weights.safetensors", "ledger.parquet"])
def test_damaged_bytes_are_never_registered(
    store: Store, workspace: Workspace, promote: Promote, report_of: ReportOf, name: str
) -> None:
    committed = promote("r1", report_of())
    digest = require_ref(store, "model", R1).output(name).digest
    data = store.get_bytes(digest)
    key = f"{store.prefix}/{object_key(digest)}"
    store.client.put_object(Bucket=store.bucket, Key=key, Body=bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(ObjectCorruptError, match=object_key(digest)):
        register(workspace, committed)
    assert read_registry(store, "candidate") is None


def test_a_promotion_that_never_reached_the_registry_fails_the_check_of_its_registration(
    store: Store, workspace: Workspace, promote: Promote, report_of: ReportOf
) -> None:
    registration = register(workspace, promote("r1", report_of()))
    finding = judged(workspace, registration)
    assert (finding.passed, finding.detail) == (True, "registered for candidate, production, as decided")
    delete(store, "registry/production/")
    delete(store, "refs/registry/production")
    finding = judged(workspace, registration)
    assert not finding.passed
    assert "production: the promoted model is not registered" in finding.detail


def test_a_superseded_promotion_still_passes_the_check_of_its_registration(
    store: Store, workspace: Workspace, promote: Promote, report_of: ReportOf
) -> None:
    registrations = [
        register(workspace, promote(release, report_of(), version=version))
        for release, version in (("r1", 0), ("r2", 0), ("r1", 1))
    ]
    for registration in registrations:
        assert judged(workspace, registration).passed
    assert "production: release r1 was superseded by r2" in judged(workspace, registrations[2]).detail
    assert registrations[2].manifest.stats == {"moved": [], "reason": "release r1 was superseded by r2"}
    assert [record.release for record in read_history(store, "production")] == ["r2", "r1"]


def test_a_rejected_model_that_is_registered_fails_the_check_of_its_registration(
    store: Store, workspace: Workspace, promote: Promote, report_of: ReportOf
) -> None:
    register(workspace, promote("r1", report_of()))
    bad = promote("r2", report_of(overall=0.3))
    registration = register(workspace, bad)
    assert judged(workspace, registration).passed
    head = store.read_key("refs/registry/production.json")
    assert head is not None
    forged = {**json.loads(head.data), "decision": bad.manifest_digest}
    assert store.replace_key("refs/registry/production.json", canonical_json(forged), head.etag)
    delete(store, "registry/production/00000001")
    finding = judged(workspace, registration)
    assert (finding.passed, finding.num_failing) == (False, 1)
    assert "production: the model is registered although the decision is rejected" in finding.detail


def test_a_model_that_is_worse_than_the_one_in_production_is_rejected(
    store: Store, workspace: Workspace, promote: Promote, report_of: ReportOf
) -> None:
    register(workspace, promote("r1", report_of(), right=0.8))
    committed = promote("r2", report_of(), right=0.4)
    decision = json.loads(output(store, committed.manifest, "decision.json"))
    assert decision["decision"] == "rejected"
    (failed,) = (gate for gate in decision["gates"] if not gate["passed"])
    assert (failed["name"], failed["outcome"]) == ("production_difference", "failed")
    assert failed["value"] == decision["comparison"]["difference"] < -0.3
    assert decision["comparison"]["interval"][1] < 0
    assert decision["comparison"]["num_shared"] == 200
    assert decision["champion"] == {
        "model": require_ref(store, "model", R1).output("weights.safetensors").digest,
        "evaluation": require_ref(store, "evaluation", R1).output("predictions.parquet").digest,
    }
    assert all(finding.passed for finding in findings(workspace, committed.manifest).values())
    card = output(store, committed.manifest, "README.md").decode()
    assert f"Compared with the model in production (`{decision['champion']['model']}`): balanced accuracy -0." in card


def test_the_same_model_in_another_release_is_promoted(
    store: Store, workspace: Workspace, promote: Promote, report_of: ReportOf
) -> None:
    register(workspace, promote("r1", report_of(), weights=b"same"))
    committed = promote("r2", report_of(), weights=b"same")
    decision = json.loads(output(store, committed.manifest, "decision.json"))
    assert (decision["decision"], decision["comparison"]["outcome"]) == ("promoted", "same_model")


def test_the_champion_is_the_model_before_the_candidate(
    workspace: Workspace, promote: Promote, report_of: ReportOf
) -> None:
    first = promote("r1", report_of())
    assert champion_of(workspace, "r1") == {}
    register(workspace, first)
    # The decision that moved the registry is not out of date because it did.
    assert champion_of(workspace, "r1") == {}
    workspace.check("promotion", R1)
    assert workspace.find_current("promotion", R1, {}) is not None
    second = promote("r2", report_of())
    champion = champion_of(workspace, "r2")
    assert set(champion) == {"model", "evaluation"}
    assert champion["model"].manifest == first.manifest.input("model").manifest
    assert [entry.name for entry in champion["model"].outputs] == ["weights.safetensors"]
    register(workspace, second)
    assert champion_of(workspace, "r2") == champion
    assert champion_of(workspace, "r1") == {}


def test_a_decision_made_before_production_moved_is_out_of_date(
    store: Store, workspace: Workspace, promote: Promote, report_of: ReportOf
) -> None:
    first, second = promote("r1", report_of()), promote("r2", report_of())
    register(workspace, first)
    with pytest.raises(CheckError, match="promotion r2: is stale"):
        register(workspace, second)
    assert [record.release for record in read_history(store, "production")] == ["r1"]


def test_equal_inputs_in_another_release_are_decided_once(
    store: Store, workspace: Workspace, promote: Promote, report_of: ReportOf
) -> None:
    same = {"weights": b"same", "samples": b"same"}
    first, second = promote("r1", report_of(), **same), promote("r2", report_of(), **same)
    assert second.cached
    assert (second.ref.content, second.ref.fingerprint) == (first.ref.content, first.ref.fingerprint)
    assert second.manifest.input("model").partition == {"release": "r2"}
    for name in ("decision.json", "README.md"):
        assert b"r1" not in output(store, first.manifest, name)


def test_a_decision_of_the_first_version_is_read(store: Store, promote: Promote, report_of: ReportOf) -> None:
    manifest = promote("r1", report_of()).manifest
    decision = json.loads(output(store, manifest, "decision.json")) | {"schema": "mm.decision/1"}
    del decision["champion"], decision["comparison"]
    for gate in decision["gates"]:
        del gate["outcome"]
    digest = store.put_bytes(canonical_json(decision))
    outputs = [entry.model_copy(update={"digest": digest}) for entry in manifest.outputs if entry.name != "README.md"]
    old = read_decision(store, manifest.model_copy(update={"outputs": outputs}))
    assert (old.state, old.champion, old.comparison) == ("production", None, None)
    assert {gate.outcome for gate in old.gates} == {"passed", "not_applicable"}
    assert "not compared" in preview(store, manifest.model_copy(update={"outputs": outputs}))


def test_a_forged_decision_fails_its_check(
    store: Store, workspace: Workspace, promote: Promote, report_of: ReportOf
) -> None:
    manifest = promote("r1", report_of(overall=0.3)).manifest
    forged = json.loads(output(store, manifest, "decision.json")) | {"decision": "promoted", "state": "production"}
    digest = store.put_bytes(json.dumps(forged).encode())
    outputs = [
        entry.model_copy(update={"digest": digest}) if entry.name == "decision.json" else entry
        for entry in manifest.outputs
    ]
    finding = findings(workspace, manifest.model_copy(update={"outputs": outputs}))["decision_follows_gates"]
    assert (finding.passed, finding.detail) == (False, "decided again, these fields differ: decision, state")


def test_the_same_inputs_give_the_same_bytes(workspace: Workspace, promote: Promote, report_of: ReportOf) -> None:
    committed = promote("r1", report_of())
    assert workspace.run("promotion", R1, environment={"ignored": 1}).cached
    again = workspace.run("promotion", R1, environment={}, force=True)
    assert (again.cached, again.manifest_digest) == (False, committed.manifest_digest)


@pytest.mark.parametrize("unusual", [{}, {"num_labelled": 0}, {"overall": 0.3}])
def test_the_model_card_is_valid(
    store: Store, promote: Promote, report_of: ReportOf, unusual: dict[str, float]
) -> None:
    committed = promote("r1", report_of(**unusual))
    card = ModelCard(output(store, committed.manifest, "README.md").decode(), ignore_metadata_errors=False)
    data = card.data.to_dict()
    assert data["license_name"] == "derived from: CC-BY-4.0, not declared"
    assert data["language"] == ["ja"]
    assert data["tags"] == ["multimodal", "text", "image"]
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results["recall_at_5_image_to_text"] == 0.6
    assert results.get("balanced_accuracy") == (
        None if unusual.get("num_labelled") == 0 else unusual.get("overall", 0.5)
    )
    assert committed.manifest.input("model").digest("weights.safetensors") in card.text
    assert "| speech | not declared | not declared |" in card.text
    assert "A transformer over text, image, audio, trained on" in card.text
    assert "video" not in card.text


def test_rules_that_were_replaced_on_record_are_another_decision(
    store: Store, settings: Settings, workspace: Workspace, promote: Promote, report_of: ReportOf
) -> None:
    before = promote("r1", report_of(overall=0.5))
    assert workspace.check("promotion", R1).passed
    text = packaged_rules()[THRESHOLDS_FILE].decode()

    def replaced(text: str) -> Workspace:
        rules = Workspace(settings, store).rules("r1")
        replace_rules(store, "r1", rules, {THRESHOLDS_FILE: text.encode()}, reason="stricter", by="me")
        return Workspace(settings, store)

    stricter = replaced(text.replace("0.35", "0.6"))
    with pytest.raises(CheckError, match="was not checked under the rules in force"):
        stricter.require_passed("promotion", R1)
    # The old decision does not pass under the new rules either.
    assert not findings(stricter, before.manifest)["decided_by_rules_in_force"].passed
    after = stricter.run("promotion", R1, environment={})
    assert after.ref.fingerprint != before.ref.fingerprint
    assert after.manifest.stats["decision"] == "rejected"
    with pytest.raises(SettingsError, match="key overal is unknown|key overall is missing"):
        replaced(text.replace("overall:", "overal:")).resolve("promotion", R1, {})


def test_an_evaluation_that_failed_its_check_cannot_be_promoted(
    workspace: Workspace, commit_inputs: Callable[..., ReleaseSpec], report_of: ReportOf
) -> None:
    commit_inputs("r1", report_of())
    judge_by_hand(workspace, "evaluation", R1, problem="3 evaluated samples are in the training ledger")
    with pytest.raises(CheckError, match="evaluation r1: failed its check: 3 evaluated samples"):
        workspace.resolve("promotion", R1, {})


def test_an_evaluation_of_another_model_cannot_promote_this_one(
    store: Store, workspace: Workspace, commit_inputs: Callable[..., ReleaseSpec], report_of: ReportOf
) -> None:
    commit_inputs("r1", report_of())
    evaluation = require_ref(store, "evaluation", R1)
    commit_inputs("r1", report_of(), version=1)
    # The old evaluation, which passed its check, back in place next to the new model.
    key = "refs/evaluation/r1.json"
    state = store.read_key(key)
    assert state is not None
    assert require_ref(store, "evaluation", R1).manifest != evaluation.manifest
    old = json.dumps(evaluation.model_dump(by_alias=True, mode="json")).encode()
    assert store.replace_key(key, old, state.etag)
    with pytest.raises(CheckError, match="evaluation r1: is stale"):
        workspace.resolve("promotion", R1, {})
