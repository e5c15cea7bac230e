"""From committed inputs to a decision, a card and a check of both."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from mm_assets.checks.validations import Finding, record_validation
from mm_assets.errors import GateError, SettingsError
from mm_assets.evaluation.report import Report
from mm_assets.identity.canonical import canonical_json, digest_json
from mm_assets.promotion.decide import compute_promotion
from mm_assets.promotion.decision import read_decision
from mm_assets.promotion.history import validate_registration
from mm_assets.promotion.inputs import resolve_promotion
from mm_assets.promotion.preview import preview
from mm_assets.promotion.registry import find_champion, read_production, register
from mm_assets.promotion.validate import validate_promotion
from mm_assets.releases.spec import ReleaseSpec
from mm_assets.settings import Settings
from mm_assets.store.commit import Committed, materialize
from mm_assets.store.manifest import Manifest, Partition
from mm_assets.store.objects import Store
from mm_assets.store.refs import require_ref

Promote = Callable[..., Committed]
ReportOf = Callable[..., Report]


def findings(store: Store, manifest: Manifest, settings: Settings) -> dict[str, Finding]:
    return {finding.rule: finding for finding in validate_promotion(store, manifest, settings)}


def output(store: Store, manifest: Manifest, name: str) -> bytes:
    return store.get_bytes(manifest.output(name).digest)


def test_a_good_model_is_promoted_registered_and_sound(
    store: Store, settings: Settings, promote: Promote, report_of: ReportOf
) -> None:
    committed = promote("r1", report_of())
    register(store, committed.manifest, committed.manifest_digest)
    decision = json.loads(output(store, committed.manifest, "decision.json"))
    assert set(decision) == {
        "schema", "decision", "state", "model", "dataset_release", "evaluation", "thresholds", "champion",
        "comparison", "gates",
    }  # fmt: skip
    assert (decision["decision"], decision["state"]) == ("promoted", "production")
    assert decision["thresholds"] == digest_json(committed.manifest.params["thresholds"])
    production = read_production(store)
    assert production is not None
    assert decision["champion"] is None
    assert decision["comparison"] == {
        "outcome": "no_champion", "reason": "no model is in production", "num_shared": 0, "difference": None,
        "interval": None,
    }  # fmt: skip
    assert (production.model, production.decision) == (decision["model"], committed.manifest_digest)
    assert all(finding.passed for finding in findings(store, committed.manifest, settings).values())
    assert "**Promoted** to **production**" in preview(store, committed.manifest)


def test_a_rejected_model_materializes_passes_its_check_and_moves_nothing(
    store: Store, settings: Settings, promote: Promote, report_of: ReportOf
) -> None:
    committed = promote("r1", report_of(overall=0.3))
    register(store, committed.manifest, committed.manifest_digest)
    assert committed.manifest.stats["num_failed_gates"] == 1
    assert read_production(store) is None
    found = findings(store, committed.manifest, settings)
    assert all(finding.passed for finding in found.values())
    assert "rejected: overall_balanced_accuracy" in found["decision_follows_gates"].detail
    assert (
        "It was rejected: overall_balanced_accuracy failed." in output(store, committed.manifest, "README.md").decode()
    )


def registration(store: Store, committed: Committed) -> Finding:
    (finding,) = validate_registration(store, committed.manifest, committed.manifest_digest)
    return finding


def test_a_promotion_that_never_reached_the_registry_fails_the_check_of_its_registration(
    store: Store, promote: Promote, report_of: ReportOf
) -> None:
    committed = promote("r1", report_of())
    finding = registration(store, committed)
    assert not finding.passed
    assert "production: the promoted model is not registered" in finding.detail
    register(store, committed.manifest, committed.manifest_digest)
    finding = registration(store, committed)
    assert (finding.passed, finding.detail) == (True, "registered for candidate, production, as decided")


def test_a_superseded_promotion_still_passes_the_check_of_its_registration(
    store: Store, promote: Promote, report_of: ReportOf
) -> None:
    committed = [promote("r1", report_of()), promote("r2", report_of()), promote("r1", report_of(), version=1)]
    for entry in committed:
        register(store, entry.manifest, entry.manifest_digest)
    for entry in committed:
        assert registration(store, entry).passed
    assert "production: release r1 was superseded by r2" in registration(store, committed[2]).detail


def test_a_rejected_model_that_is_registered_fails_the_check_of_its_registration(
    store: Store, promote: Promote, report_of: ReportOf
) -> None:
    good, bad = promote("r1", report_of()), promote("r2", report_of(overall=0.3))
    register(store, good.manifest, good.manifest_digest)
    head = store.read_key("refs/registry/production.json")
    assert head is not None
    forged = {**json.loads(head.data), "decision": bad.manifest_digest}
    assert store.replace_key("refs/registry/production.json", canonical_json(forged), head.etag)
    store.client.delete_object(Bucket=store.bucket, Key=f"{store.prefix}/registry/production/00000001.json")
    finding = registration(store, bad)
    assert (finding.passed, finding.num_failing) == (False, 1)
    assert "production: the model is registered although the decision is rejected" in finding.detail


def test_a_model_that_is_worse_than_the_one_in_production_is_rejected(
    store: Store, settings: Settings, promote: Promote, report_of: ReportOf
) -> None:
    champion = promote("r1", report_of(), right=0.8)
    committed = promote("r2", report_of(), right=0.4, champion=champion)
    decision = json.loads(output(store, committed.manifest, "decision.json"))
    assert decision["decision"] == "rejected"
    (failed,) = (gate for gate in decision["gates"] if not gate["passed"])
    assert (failed["name"], failed["outcome"]) == ("production_difference", "failed")
    assert failed["value"] == decision["comparison"]["difference"] < -0.3
    assert decision["comparison"]["interval"][1] < 0
    assert decision["comparison"]["num_shared"] == 200
    assert decision["champion"] == {
        "model": champion.manifest.input("model").digest,
        "evaluation": champion.manifest.input("evaluation").digest,
    }
    assert all(finding.passed for finding in findings(store, committed.manifest, settings).values())
    card = output(store, committed.manifest, "README.md").decode()
    assert f"Compared with the model in production (`{decision['champion']['model']}`): balanced accuracy -0." in card


def test_the_same_model_in_another_release_is_promoted(store: Store, promote: Promote, report_of: ReportOf) -> None:
    champion = promote("r1", report_of(), weights=b"same")
    committed = promote("r2", report_of(), weights=b"same", champion=champion)
    decision = json.loads(output(store, committed.manifest, "decision.json"))
    assert (decision["decision"], decision["comparison"]["outcome"]) == ("promoted", "same_model")


def test_the_champion_is_the_model_before_the_candidate(store: Store, promote: Promote, report_of: ReportOf) -> None:
    first, second = promote("r1", report_of()), promote("r2", report_of())
    own, other = (entry.manifest.input("model").digest for entry in (first, second))
    assert find_champion(store, release="r1", model=own) is None
    register(store, first.manifest, first.manifest_digest)
    assert find_champion(store, release="r1", model=own) is None
    champion = find_champion(store, release="r2", model=other)
    assert champion is not None
    assert champion.model == own
    register(store, second.manifest, second.manifest_digest)
    assert find_champion(store, release="r2", model=other) == champion
    assert find_champion(store, release="r1", model=own) is None


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
    store: Store, settings: Settings, promote: Promote, report_of: ReportOf
) -> None:
    manifest = promote("r1", report_of(overall=0.3)).manifest
    forged = json.loads(output(store, manifest, "decision.json")) | {"decision": "promoted", "state": "production"}
    digest = store.put_bytes(json.dumps(forged).encode())
    outputs = [
        entry.model_copy(update={"digest": digest}) if entry.name == "decision.json" else entry
        for entry in manifest.outputs
    ]
    finding = findings(store, manifest.model_copy(update={"outputs": outputs}), settings)["decision_follows_gates"]
    assert (finding.passed, finding.detail) == (False, "decided again, these fields differ: decision, state")


def test_the_same_inputs_give_the_same_bytes(
    store: Store, settings: Settings, tmp_path: Path, promote: Promote, report_of: ReportOf
) -> None:
    committed = promote("r1", report_of())
    recipe = resolve_promotion(store, spec_of(store, "r1"), Partition(release="r1"), {"ignored": 1})
    assert recipe.fingerprint == committed.manifest.fingerprint
    again = materialize(store, recipe, lambda: compute_promotion(store, recipe, tmp_path, settings), force=True)
    assert again.manifest_digest == committed.manifest_digest


@pytest.mark.parametrize("unusual", [{}, {"num_labelled": 0}, {"overall": 0.3}])
def test_the_model_card_is_valid(
    store: Store, promote: Promote, report_of: ReportOf, unusual: dict[str, float]
) -> None:
    committed = promote("r1", report_of(**unusual))
    card = ModelCard(output(store, committed.manifest, "README.md").decode(), ignore_metadata_errors=False)
    data = card.data.to_dict()
    assert data["license_name"] == "derived from: CC-BY-4.0"
    assert data["language"] == ["ja"]
    assert data["tags"] == ["multimodal", "text", "image"]
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results["recall_at_5_image_to_text"] == 0.6
    assert results.get("balanced_accuracy") == (
        None if unusual.get("num_labelled") == 0 else unusual.get("overall", 0.5)
    )
    assert committed.manifest.input("model").digest in card.text
    assert "| speech | not given | not given |" in card.text


def test_changed_thresholds_are_another_decision(
    store: Store, tmp_path: Path, commit_inputs: Callable[..., ReleaseSpec], report_of: ReportOf, settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    spec = commit_inputs("r1", report_of(overall=0.5))
    partition = Partition(release="r1")
    before = resolve_promotion(store, spec, partition, {})
    own = tmp_path / "config"
    own.mkdir()
    text = settings.config_file("promotion.yaml").read_text(encoding="utf-8")
    (own / "promotion.yaml").write_text(text.replace("0.35", "0.6"), encoding="utf-8")
    monkeypatch.setenv("MM_CONFIG_DIR", str(own))
    after = resolve_promotion(store, spec, partition, {})
    assert after.fingerprint != before.fingerprint
    committed = materialize(store, after, lambda: compute_promotion(store, after, tmp_path, settings))
    assert committed.manifest.stats["decision"] == "rejected"
    (own / "promotion.yaml").write_text(text.replace("overall:", "overal:"), encoding="utf-8")
    with pytest.raises(SettingsError, match="key overal is unknown|key overall is missing"):
        resolve_promotion(store, spec, partition, {})


def test_an_evaluation_that_failed_its_checks_cannot_be_promoted(
    store: Store, commit_inputs: Callable[..., ReleaseSpec], report_of: ReportOf
) -> None:
    spec = commit_inputs("r1", report_of())
    ref = require_ref(store, "evaluation", Partition(release="r1"))
    leak = Finding(rule="no_leakage", passed=False, detail="3 evaluated samples are in the training ledger")
    record_validation(store, ref, rules=digest_json("rules"), findings=[leak])
    with pytest.raises(GateError, match="evaluation r1: failed its checks: 3 evaluated samples"):
        resolve_promotion(store, spec, Partition(release="r1"), {})


def test_an_evaluation_of_another_model_cannot_promote_this_one(
    store: Store, commit_inputs: Callable[..., ReleaseSpec], report_of: ReportOf
) -> None:
    spec = commit_inputs("r1", report_of())
    evaluation = require_ref(store, "evaluation", Partition(release="r1"))
    commit_inputs("r1", report_of(), version=1)
    current = require_ref(store, "evaluation", Partition(release="r1"))
    # The old evaluation back in place, next to the new model.
    key = "refs/evaluation/r1.json"
    state = store.read_key(key)
    assert state is not None
    assert current.manifest != evaluation.manifest
    assert store.replace_key(key, json.dumps(evaluation.model_dump(by_alias=True)).encode(), state.etag)
    record_validation(store, evaluation, rules=digest_json("r"), findings=[Finding(rule="r", passed=True, detail="ok")])
    with pytest.raises(GateError, match="evaluation r1: was made from another model"):
        resolve_promotion(store, spec, Partition(release="r1"), {})


def spec_of(store: Store, release: str) -> ReleaseSpec:
    data = store.read_key(f"releases/{release}/spec.json")
    assert data is not None
    return ReleaseSpec.model_validate_json(data.data)
