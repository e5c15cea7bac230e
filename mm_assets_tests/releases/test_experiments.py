"""Named releases: what an experiment takes over from the release whose data it uses, and what it may not change."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mm_assets import configurations
from mm_assets.checks.exclusions import EXCLUSIONS, Exclusions
from mm_assets.checks.rules import replace_rules
from mm_assets.configurations import CONFIGURATIONS, SMOKE, ReleaseRequest, open_named_release
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.errors import CheckError, CommitConflictError, SettingsError, SpecError, UsageError
from mm_assets.features.config import EncoderConfig, FeaturesConfig
from mm_assets.identity.canonical import digest_bytes, to_json
from mm_assets.materialize import Workspace
from mm_assets.pipeline import OPTIONAL_RULES
from mm_assets.promotion.record import RegistryRecord, registry_key
from mm_assets.releases.policies import add_policy, pin_policy
from mm_assets.releases.spec import ReleasePin, ReleaseSpec, list_releases
from mm_assets.settings import Settings
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import Store
from mm_assets.store.refs import require_ref
from mm_assets_tests.by_hand import open_by_hand

BASE = "r1"
FROZEN = ("dataset_release", Partition(release=BASE))


@pytest.fixture
def workspace(store: Store, settings: Settings) -> Workspace:
    return Workspace(replace(settings, num_shards=1), store)


@pytest.fixture
def base(workspace: Workspace, push_samples: Callable[..., Path]) -> ReleaseSpec:
    """An open release with two exclusions."""
    push_samples(workspace.store, "shapes", "d1", num_samples=4)
    request = ReleaseRequest(
        release=BASE, drops=(("shapes", "d1"),), configuration="smoke", policy="default", exclusions=("b", "a")
    )
    return open_named_release(workspace, request)


@pytest.fixture
def frozen(workspace: Workspace, base: ReleaseSpec) -> ReleaseSpec:
    """The same release, frozen and checked."""
    for shard in base.shards():
        for asset in ("snapshot", "features", "embeddings"):
            make(workspace, asset, Partition(release=BASE, shard=shard))
    make(workspace, "dataset_release", Partition(release=BASE))
    return base


def make(workspace: Workspace, asset: str, partition: Partition) -> None:
    workspace.run(asset, partition, environment={})
    record = workspace.check(asset, partition)
    assert record.passed, record.failures


def test_a_named_release_pins_configuration_policy_and_rules(workspace: Workspace, base: ReleaseSpec) -> None:
    assert base.configuration["name"] == "smoke"
    assert base.configuration["training"] == to_json(SMOKE.training)
    assert base.seed == SMOKE.seed
    assert base.policy == pin_policy(workspace.store, "default")
    assert base.exclusions == ["a", "b"]
    assert set(base.rules) == {"snapshot.yaml", "features.yaml", "promotion.yaml"}
    for name, digest in base.rules.items():
        assert workspace.rules(BASE).read(name) == workspace.store.get_bytes(digest)


def test_files_of_whoever_runs_something_do_not_count(
    workspace: Workspace, base: ReleaseSpec, settings: Settings, tmp_path: Path
) -> None:
    weak = b"schema: mm.suite/1\nname: weak\nexpectations: []\n"
    for name in base.rules:
        (tmp_path / name).write_bytes(weak)
    elsewhere = Workspace(replace(settings, config_dir=tmp_path), workspace.store)
    assert elsewhere.rules(BASE).digests == workspace.rules(BASE).digests == base.rules
    replace_rules(workspace.store, BASE, workspace.rules(BASE), {"snapshot.yaml": weak}, reason="on record", by="ada")
    assert Workspace(settings, workspace.store).rules(BASE).read("snapshot.yaml") == weak


def test_rules_without_a_usable_form_are_refused_when_a_release_is_opened(
    workspace: Workspace, base: ReleaseSpec, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "snapshot.yaml").write_bytes(b"anything: goes\n")
    elsewhere = Workspace(replace(settings, config_dir=tmp_path), workspace.store)
    with pytest.raises(SettingsError, match=r"snapshot\.yaml"):
        open_named_release(elsewhere, ReleaseRequest(release="r2", drops=(("shapes", "d1"),)))
    assert list_releases(workspace.store) == [BASE]


def test_what_the_model_in_production_was_tested_on_is_an_evaluation_set_of_other_data(
    workspace: Workspace, frozen: ReleaseSpec, push_samples: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of the same data with the same splits, or of a child, whose line it is."""
    store = workspace.store
    fractions = replace(SMOKE.release, train_fraction=0.8, val_fraction=0.05)
    monkeypatch.setitem(CONFIGURATIONS, "seeded", replace(SMOKE, seed=3))
    monkeypatch.setitem(CONFIGURATIONS, "fractions", replace(SMOKE, release=fractions))
    digest = require_ref(store, "dataset_release", Partition(release=BASE)).manifest
    record = RegistryRecord(
        schema="mm.production/2", sequence=1, state="production", release=BASE, model=digest, dataset_release=digest,
        decision=digest, previous=None,
    )  # fmt: skip
    assert store.create_key(registry_key("production"), record.encode())
    push_samples(store, "shapes", "d2", num_samples=4)

    def sets(release: str, **request: Any) -> list[str]:
        opened = open_named_release(workspace, ReleaseRequest(release=release, **request))
        return [pin.release for pin in opened.evaluation_sets]

    assert sets("other", drops=(("shapes", "d2"),), configuration="smoke") == [BASE]
    assert sets("same", drops=(("shapes", "d1"),), configuration="smoke", exclusions=("a", "b")) == []
    assert sets("experiment", data_of=BASE) == []
    # Another policy or seed may move what the model was tested on into train.
    assert sets("stricter", data_of=BASE, policy="clean") == [BASE]
    assert sets("seeded", data_of=BASE, configuration="seeded") == [BASE]
    assert sets("same-but-fractions", drops=(("shapes", "d1"),), configuration="fractions") == [BASE]
    assert sets("child", drops=(("shapes", "d2"),), parent=BASE, configuration="smoke") == []


def test_a_release_like_another_takes_over_its_encoder_and_rules(workspace: Workspace, base: ReleaseSpec) -> None:
    store = workspace.store
    towers = open_by_hand(store, "t", encoder={"kind": "towers", "digest": store.put_bytes(b"e")})
    weak = b"schema: mm.suite/1\nname: weak\nexpectations: []\n"
    replace_rules(store, "t", workspace.rules("t"), {"snapshot.yaml": weak}, reason="on record", by="ada")
    fresh = Workspace(workspace.settings, store)
    request = ReleaseRequest(release="x", drops=(("shapes", "d1"),), configuration="smoke", like="t")
    opened = open_named_release(fresh, request)
    assert opened.encoder == towers.encoder
    assert opened.rules == {**base.rules, "snapshot.yaml": digest_bytes(weak)}
    with pytest.raises(SpecError, match=r"encoder of release t: .* expected encoder\.dim 64, got 512"):
        open_named_release(fresh, replace(request, release="y", configuration="multimodal_cpu_512"))


@pytest.mark.parametrize("option", ["data_of", "parent"])
def test_a_release_can_only_be_built_on_one_that_is_open_and_frozen(
    workspace: Workspace, base: ReleaseSpec, option: str
) -> None:
    drops = (("shapes", "d1"),) if option == "parent" else ()
    flag = "--" + option.replace("_", "-")
    for name, named in (("r0", "release r0: is not open"), (BASE, "dataset_release r1: is not materialized")):
        request = ReleaseRequest(release="x", drops=drops, **{option: name})
        with pytest.raises(UsageError, match=f"{flag} {name}: cannot be used: {named}"):
            open_named_release(workspace, request)
    assert list_releases(workspace.store) == [base.release]


def test_unknown_names_are_usage_errors(workspace: Workspace, base: ReleaseSpec) -> None:
    drops = (("shapes", "d1"),)
    for request in (
        ReleaseRequest(release="x", drops=drops, configuration="nope"),
        ReleaseRequest(release="x", drops=drops, policy="nope"),
    ):
        with pytest.raises(UsageError, match="nope: is unknown"):
            open_named_release(workspace, request)
    with pytest.raises(CommitConflictError, match="configuration.name: expected .smoke., got .multimodal_cpu."):
        open_named_release(workspace, ReleaseRequest(release=BASE, drops=drops, exclusions=("a", "b")))
    assert list_releases(workspace.store) == [base.release]


def test_a_release_opened_again_keeps_the_version_of_its_policy(
    workspace: Workspace, base: ReleaseSpec, settings: Settings
) -> None:
    store = workspace.store
    data = store.get_bytes(base.policy["digest"])
    add_policy(store, "ours", "ours.yaml", data, by="ada")
    request = ReleaseRequest(release="r2", drops=(("shapes", "d1"),), configuration="smoke", policy="ours")
    opened = open_named_release(workspace, request)
    add_policy(store, "ours", "ours.yaml", data + b"# Another version.\n", by="ada")
    assert open_named_release(workspace, request) == opened
    with pytest.raises(CommitConflictError, match="policy.version: expected .1., got .2."):
        open_named_release(workspace, replace(request, policy="ours@2"))


def test_a_release_opened_again_keeps_the_model_that_embeds_it(
    v1_store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONFIGURATIONS, "short", replace(SMOKE, encoder=EncoderConfig(dim=16)))
    workspace = Workspace(settings, v1_store)
    request = ReleaseRequest(
        release="r2", drops=(("emoji", "2026-11"),), configuration="short", encoder="production", use="training"
    )
    opened = open_named_release(workspace, request)
    assert opened.encoder["kind"] == "towers"
    head = v1_store.read_key("refs/registry/production.json")
    assert head is not None
    assert v1_store.replace_key("refs/registry/production.json", b"{}", head.etag)
    assert open_named_release(workspace, request) == opened


def test_an_experiment_takes_over_what_it_does_not_change(workspace: Workspace, frozen: ReleaseSpec) -> None:
    spec = open_named_release(workspace, ReleaseRequest(release="x", data_of=BASE, exclusions=("c",)))
    assert spec.data_of is not None
    assert spec.data_of.release == BASE
    assert spec.data_of.digest == workspace.require_sound("dataset_release", Partition(release=BASE))
    assert (spec.drops, spec.parent, spec.num_shards) == ([], None, 0)
    for name in ("configuration", "policy", "encoder", "seed"):
        assert getattr(spec, name) == getattr(frozen, name)
    assert spec.exclusions == ["a", "b", "c"]
    other = open_named_release(workspace, ReleaseRequest(release="p", data_of=BASE, policy="private"))
    assert other.policy == pin_policy(workspace.store, "private") != frozen.policy


def test_an_unchanged_experiment_is_frozen_without_computing(workspace: Workspace, frozen: ReleaseSpec) -> None:
    open_named_release(workspace, ReleaseRequest(release="x", data_of=BASE))
    base = workspace.ref("dataset_release", Partition(release=BASE))
    committed = workspace.run("dataset_release", Partition(release="x"), environment={})
    assert base is not None
    assert committed.cached
    assert (committed.ref.content, committed.ref.fingerprint) == (base.content, base.fingerprint)
    assert workspace.require_passed("dataset_release", Partition(release="x")).content == base.content


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("snapshot", SnapshotConfig(max_tar_members=77)),
        ("features", FeaturesConfig(image_size=48)),
        ("encoder", EncoderConfig(neighbours=9)),
    ],
)
def test_an_experiment_cannot_change_what_makes_shards(
    workspace: Workspace, frozen: ReleaseSpec, monkeypatch: pytest.MonkeyPatch, section: str, value: object
) -> None:
    monkeypatch.setitem(CONFIGURATIONS, "changed", replace(SMOKE, **{section: value}))
    with pytest.raises(SpecError, match=f"configuration changed makes other shards than r1: section {section}: "):
        open_named_release(workspace, ReleaseRequest(release="x", data_of=BASE, configuration="changed"))
    assert list_releases(workspace.store) == [frozen.release]


def test_an_experiment_may_change_everything_behind_the_shards(
    workspace: Workspace, frozen: ReleaseSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = replace(SMOKE, seed=3, plan=replace(SMOKE.plan, num_steps=5))
    monkeypatch.setitem(configurations.CONFIGURATIONS, "changed", changed)
    spec = open_named_release(workspace, ReleaseRequest(release="x", data_of=BASE, configuration="changed"))
    assert spec.seed == 3
    assert spec.configuration["plan"] == to_json(changed.plan)
    assert {name: spec.configuration[name] for name in configurations.SHARD_SECTIONS} == {
        name: frozen.configuration[name] for name in configurations.SHARD_SECTIONS
    }


def test_a_release_whose_freeze_fails_its_check_is_not_built_on(workspace: Workspace, frozen: ReleaseSpec) -> None:
    stricter = {"snapshot.yaml": b"# stricter\n" + workspace.rules(BASE).read("snapshot.yaml")}
    replaced = replace_rules(workspace.store, BASE, workspace.rules(BASE), stricter, reason="stricter", by="ada")
    assert replaced.changed == ["snapshot.yaml"]
    fresh = Workspace(workspace.settings, workspace.store)
    with pytest.raises(CheckError, match="was not checked under the rules in force"):
        open_named_release(fresh, ReleaseRequest(release="x", data_of=BASE))


def test_an_experiment_is_held_against_the_sets_of_the_release_whose_data_it_uses(
    workspace: Workspace, frozen: ReleaseSpec
) -> None:
    held_out = ReleasePin(release="held-out", digest=require_ref(workspace.store, *FROZEN).manifest)
    document = frozen.model_copy(update={"release": "held", "evaluation_sets": [held_out]})
    workspace.store.create_key("releases/held/spec.json", document.encode())
    for shard in document.shards():
        for asset in ("snapshot", "features", "embeddings"):
            make(workspace, asset, Partition(release="held", shard=shard))
    make(workspace, "dataset_release", Partition(release="held"))
    assert open_named_release(workspace, ReleaseRequest(release="x", data_of="held")).evaluation_sets == [held_out]


def test_a_release_of_a_source_that_is_for_certain_uses_declares_one(
    workspace: Workspace, push_samples: Callable[..., Path]
) -> None:
    store = workspace.store
    push_samples(store, "shapes", "d1", num_samples=4)
    key = "raw/shapes/source.yaml"
    head = store.read_key(key)
    assert head is not None
    limited = head.data.replace(b"  - not declared", b"  - research", 1)
    assert store.replace_key(key, limited, head.etag)
    request = ReleaseRequest(release=BASE, drops=(("shapes", "d1"),), configuration="smoke")
    with pytest.raises(CheckError, match=r"release r1: source shapes: its allowed uses are research, .* with --use"):
        open_named_release(workspace, request)
    opened = open_named_release(workspace, replace(request, use="research"))
    for shard in opened.shards():
        for asset in ("snapshot", "features", "embeddings"):
            make(workspace, asset, Partition(release=BASE, shard=shard))
    make(workspace, "dataset_release", Partition(release=BASE))
    push_samples(store, "shapes", "d2", num_samples=4)
    child = ReleaseRequest(release="r2", drops=(("shapes", "d2"),), parent=BASE, configuration="smoke")
    assert open_named_release(workspace, child).use == "research"
    repeated = replace(child, release="r3", drops=(("shapes", "d2"), ("shapes", "d1")))
    with pytest.raises(SpecError, match="release r3: drop shapes/d1 is in its parent r1 already"):
        open_named_release(workspace, repeated)


def refused(workspace: Workspace, asset: str) -> str:
    """Why an asset of the base cannot be made now."""
    with pytest.raises(CheckError) as caught:
        Workspace(workspace.settings, workspace.store).resolve(asset, FROZEN[1], {})
    return str(caught.value)


@pytest.mark.parametrize("asset", ["batch_plan", "model", "evaluation", "promotion"])
def test_consent_withdrawn_after_the_freeze_stops_what_is_behind_it(
    workspace: Workspace, frozen: ReleaseSpec, asset: str
) -> None:
    head = workspace.store.read_key("raw/shapes/source.yaml")
    assert head is not None
    withdrawn = head.data.replace(b"consent: not declared", b"consent: withdrawn")
    assert workspace.store.replace_key("raw/shapes/source.yaml", withdrawn, head.etag)
    assert "dataset_release r1: failed its check: source shapes: consent is withdrawn." in refused(workspace, asset)
    record = workspace.check(*FROZEN)
    failed = {str(finding["rule"]): finding for finding in record.findings if not finding["passed"]}
    assert list(failed) == ["terms"]
    again = workspace.store.read_key("raw/shapes/source.yaml")
    assert again is not None
    assert workspace.store.replace_key("raw/shapes/source.yaml", head.data, again.etag)
    assert workspace.require_passed(*FROZEN)


def test_a_sample_excluded_after_the_freeze_stops_what_is_behind_it(workspace: Workspace, frozen: ReleaseSpec) -> None:
    store = workspace.store
    excluded = {EXCLUSIONS: Exclusions(samples={"shapes/d1/s001": "asked for"}).encode()}
    rules = workspace.rules(BASE)
    replace_rules(store, BASE, rules, excluded, reason="asked for", by="ada", optional=OPTIONAL_RULES)
    assert "excluded on record since it was frozen: shapes/d1/s001; freeze it again" in refused(workspace, "batch_plan")
    fresh = Workspace(workspace.settings, store)
    record = fresh.check(*FROZEN)
    assert [finding["failing_ids"] for finding in record.findings if not finding["passed"]] == [["shapes/d1/s001"]]
    for asset in ("snapshot", "features", "embeddings"):
        assert fresh.find_current(asset, Partition(release=BASE, shard="0000"), {}) is not None
    make(fresh, *FROZEN)
    assert fresh.resolve("batch_plan", FROZEN[1], {}).inputs
