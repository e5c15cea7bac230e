"""What was damaged, weakened or forged never ends green: tried on a small release that was really computed."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from mm_assets.checks.rules import read_rules_record
from mm_assets.cli import main
from mm_assets.configurations import CONFIGURATIONS, SMOKE, ReleaseRequest, open_named_release
from mm_assets.errors import CheckError, SettingsError
from mm_assets.identity.canonical import canonical_json
from mm_assets.lineage.verify import verify_store
from mm_assets.materialize import Workspace
from mm_assets.operations.instance import instance_for
from mm_assets.operations.run_release import RunReport, RunRequest, run_release
from mm_assets.pipeline import ASSETS, FEATURES_RULES, PROMOTION_RULES, SNAPSHOT_RULES
from mm_assets.promotion.chain import read_history, read_production
from mm_assets.promotion.decision import read_decision
from mm_assets.promotion.record import RegistryRecord, entry_key, registry_key
from mm_assets.settings import PACKAGED_CONFIG, Settings, read_settings
from mm_assets.store.action import action_key
from mm_assets.store.client import make_client
from mm_assets.store.manifest import Manifest, Partition, read_manifest
from mm_assets.store.objects import Store, object_key
from mm_assets.store.refs import ref_key, require_ref
from mm_assets_tests.conftest import MOTO_KEYS, push_shapes
from mm_assets_tests.stores import (
    LENIENT_PROMOTION,
    advance,
    delete,
    dump_store,
    flip_byte,
    load_store,
    only,
    write,
)

pytestmark = pytest.mark.e2e

SHARD = Partition(release="r1", shard="0000")
#: The configuration of the candidate: another learning rate, everything else as in smoke.
HASTY = replace(SMOKE, training=replace(SMOKE.training, optimizer=replace(SMOKE.training.optimizer, peak_lr=0.004)))
#: Everything in a release up to its decision.
EVALUATED = tuple(name for name in ASSETS if name not in ("promotion", "registration"))
WEAK_SUITE = "expectations: {disabled: nothing is checked}\nmax_dead_letter_fraction: {disabled: nothing is checked}\n"

Damage = Callable[[Store, str], None]


def rules_folder(folder: Path, **files: str) -> Path:
    """A folder for ``MM_CONFIG_DIR``; ``promotion`` and the like name its files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def computed(moto_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A store with release ``r1`` in production and its experiment ``e1`` evaluated; both with low gates."""
    client = make_client(moto_endpoint, MOTO_KEYS)
    client.create_bucket(Bucket="green")
    store = Store(client=client, bucket="green", prefix="store")
    folder = tmp_path_factory.mktemp("green")
    settings = read_settings(
        {
            "MM_STORE_URI": "s3://green/store",
            "MM_S3_ENDPOINT": moto_endpoint,
            "MM_NUM_SHARDS": "1",
            "MM_WORLD_SIZE": "1",
            "MM_HOME": str(folder / "home"),
            "MM_CONFIG_DIR": str(rules_folder(folder / "rules", promotion=LENIENT_PROMOTION)),
        }
    )
    workspace = Workspace(settings, store)
    push_shapes(store, folder, "shapes", "d1")
    open_named_release(workspace, ReleaseRequest(release="r1", drops=(("shapes", "d1"),), configuration="smoke"))
    advance(workspace, "r1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CONFIGURATIONS, "hasty", HASTY)
        open_named_release(workspace, ReleaseRequest(release="e1", data_of="r1", configuration="hasty"))
    advance(workspace, "e1", [name for name in EVALUATED if not ASSETS[name].is_sharded])
    return dump_store(store)


@pytest.fixture
def settings(moto_settings: Settings) -> Settings:
    return replace(moto_settings, num_shards=1, world_size=1, parallel=1)


@pytest.fixture
def filled(store: Store, computed: dict[str, bytes]) -> Store:
    load_store(store, computed)
    return store


@pytest.fixture
def workspace(filled: Store, settings: Settings) -> Workspace:
    return Workspace(settings, filled)


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., RunReport]]:
    """``mm run``."""
    monkeypatch.setenv("MM_NUM_SHARDS", "1")
    monkeypatch.setenv("MM_WORLD_SIZE", "1")
    with instance_for(settings) as instance:
        yield lambda release, stage, **options: _run(instance, settings, release, stage, **options)


def _run(
    instance: dg.DagsterInstance,
    settings: Settings,
    release: str,
    stage: str,
    *,
    force: bool = False,
    config_dir: Path | None = None,
) -> RunReport:
    request = RunRequest(release=release, stages=(stage,), force=force, parallel=1)
    return run_release(instance, request, settings=replace(settings, config_dir=config_dir))


def manifest_of(store: Store, asset: str, partition: Partition) -> Manifest:
    return read_manifest(store, require_ref(store, asset, partition).manifest)


def production_release(store: Store) -> str | None:
    record = read_production(store)
    return record.release if record else None


def sentences(report: RunReport) -> str:
    return " ".join(failure.sentence for failure in report.failed)


def test_what_is_sound_is_promoted(filled: Store, run: Callable[..., RunReport]) -> None:
    """Without it, the tests below could be green for another reason."""
    assert production_release(filled) == "r1"
    assert verify_store(filled).is_sound
    report = run("e1", "promotion")
    assert report.failed == ()
    assert report.registered is not None
    assert report.registered["moved"] == ["candidate", "production"]
    assert production_release(filled) == "e1"
    decision = read_decision(filled, manifest_of(filled, "promotion", only("e1")))
    disabled = {gate.name: gate.reason for gate in decision.gates if gate.outcome == "disabled"}
    assert len(disabled) == 5
    assert all("a few samples teach nothing" in reason for reason in disabled.values())
    assert decision.champion is not None


@pytest.mark.parametrize(
    ("asset", "output", "damage"),
    [
        ("model", "weights.safetensors", flip_byte),
        ("model", "weights.safetensors", delete),
        ("model", "ledger.parquet", flip_byte),
        ("evaluation", "report.json", delete),
    ],
)
def test_damaged_evidence_promotes_nothing(
    filled: Store, run: Callable[..., RunReport], asset: str, output: str, damage: Damage
) -> None:
    digest = manifest_of(filled, asset, only("e1")).output(output).digest
    before = filled.read_key(registry_key("production"))
    damage(filled, object_key(digest))
    report = run("e1", "promotion")
    assert report.failed
    assert digest.removeprefix("sha256:") in sentences(report)
    after = filled.read_key(registry_key("production"))
    assert before is not None
    assert after is not None
    assert after.data == before.data
    assert production_release(filled) == "r1"


def test_a_damaged_raw_object_promotes_nothing(filled: Store, run: Callable[..., RunReport]) -> None:
    flip_byte(filled, "raw/shapes/d1/s003.png")
    report = run("e1", "promotion")
    assert "raw/shapes/d1/s003.png" in sentences(report)
    assert production_release(filled) == "r1"


def test_force_repairs_a_flipped_byte(filled: Store, run: Callable[..., RunReport]) -> None:
    key = object_key(manifest_of(filled, "snapshot", SHARD).output("samples.tar").digest)
    flip_byte(filled, key)
    assert key in verify_store(filled).corrupt
    report = run("r1", "snapshot", force=True)
    assert (report.failed, report.computed) == ((), 1)
    found = verify_store(filled)
    assert found.is_sound, found.reasons


def test_weak_rules_of_whoever_runs_it_do_not_count(
    workspace: Workspace, run: Callable[..., RunReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = workspace.store
    monkeypatch.setitem(CONFIGURATIONS, "hasty", HASTY)
    open_named_release(workspace, ReleaseRequest(release="e2", data_of="r1", configuration="hasty"))
    weak = rules_folder(tmp_path / "weak", promotion=LENIENT_PROMOTION, snapshot=WEAK_SUITE, features=WEAK_SUITE)
    lenient = Workspace(replace(workspace.settings, config_dir=weak), store)
    assert sum(advance(lenient, "e2", [name for name in EVALUATED if not ASSETS[name].is_sharded]).values()) == 0
    report = run("e2", "promotion", config_dir=weak)
    assert report.registered is not None
    assert report.registered["moved"] == []
    decision = read_decision(store, manifest_of(store, "promotion", only("e2")))
    assert decision.decision == "rejected"
    assert {"evidence", "production_difference"} <= {gate.name for gate in decision.failed}
    assert production_release(store) == "r1"


def test_an_empty_suite_of_whoever_runs_it_makes_no_bad_shard_good(
    workspace: Workspace, run: Callable[..., RunReport], tmp_path: Path
) -> None:
    push_shapes(workspace.store, tmp_path, "shapes", "bad", num_broken=12)
    open_named_release(workspace, ReleaseRequest(release="b1", drops=(("shapes", "bad"),), configuration="smoke"))
    weak = rules_folder(tmp_path / "weak", snapshot=WEAK_SUITE, features=WEAK_SUITE)
    report = run("b1", "snapshot", config_dir=weak)
    assert [failure.asset for failure in report.failed] == ["snapshot"]
    lenient = Workspace(replace(workspace.settings, config_dir=weak), workspace.store)
    with pytest.raises(CheckError, match="snapshot b1/0000: failed its check"):
        lenient.run("features", Partition(release="b1", shard="0000"), environment={})


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (SNAPSHOT_RULES, None, ""),
        (SNAPSHOT_RULES, None, "expectations: []\n"),
        (FEATURES_RULES, None, "max_dead_letter_fraction: 0.05\n"),
        (PROMOTION_RULES, "names: [modalities, language]", "names: []"),
        (PROMOTION_RULES, "min_samples: 30", "min_samples: 100000000"),
        (PROMOTION_RULES, "min_balanced_accuracy: 0.35", "min_balanced_accuracy: 0.0"),
        (PROMOTION_RULES, "max_ece: 0.2", "max_ece: 1.0"),
        (PROMOTION_RULES, "  max_ece: 0.2", "  disabled: ''"),
    ],
)
def test_rules_that_check_nothing_open_no_release(
    workspace: Workspace, tmp_path: Path, name: str, old: str | None, new: str
) -> None:
    text = (PACKAGED_CONFIG / name).read_text("utf-8")
    assert old is None or old in text
    changed = new if old is None else text.replace(old, new)
    folder = rules_folder(tmp_path / "rules", **{name.removesuffix(".yaml"): changed})
    lenient = Workspace(replace(workspace.settings, config_dir=folder), workspace.store)
    with pytest.raises(SettingsError, match=name):
        open_named_release(lenient, ReleaseRequest(release="e3", data_of="r1"))
    assert workspace.store.read_key("releases/e3/spec.json") is None


def test_replaced_rules_are_on_record_and_void_the_old_outcomes(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = workspace.store
    text = (PACKAGED_CONFIG / SNAPSHOT_RULES).read_text("utf-8")
    file = tmp_path / SNAPSHOT_RULES
    file.write_text(text.replace("max_dead_letter_fraction: 0.1", "max_dead_letter_fraction: 0.07"), "utf-8")
    assert workspace.require_passed("snapshot", SHARD)
    status = main(["rules", "set", "--release", "r1", str(file), "--reason", "fewer dead letters", "--json"])
    assert status == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert shown["replaced"]["reason"] == "fewer dead letters"
    record = read_rules_record(store, "r1")
    assert record is not None
    assert record.changed == [SNAPSHOT_RULES]
    fresh = Workspace(workspace.settings, store)
    for name in ("features", "dataset_release"):
        partition = SHARD if ASSETS[name].is_sharded else only("r1")
        with pytest.raises(CheckError, match="was not checked under the rules in force"):
            fresh.resolve(name, partition, {})
    # An experiment on it is refused too: its data are judged by the rules of the release they come from.
    with pytest.raises(CheckError, match="r1"):
        fresh.resolve("dataset_release", only("e1"), {})
    computed = advance(Workspace(workspace.settings, store), "r1", ["snapshot", "features"])
    assert computed == {"snapshot": 0, "features": 0}
    assert Workspace(workspace.settings, store).require_passed("snapshot", SHARD)


def test_an_action_that_is_not_its_own_is_not_served(workspace: Workspace) -> None:
    store = workspace.store
    ref = require_ref(store, "features", SHARD)
    other = store.read_key(action_key(require_ref(store, "snapshot", SHARD).fingerprint))
    assert other is not None
    write(store, action_key(ref.fingerprint), other.data)
    delete(store, ref_key("features", SHARD))
    committed = workspace.run("features", SHARD, environment={})
    assert not committed.cached
    assert committed.manifest.content == ref.content
    # The record is right again.
    assert workspace.run("features", SHARD, environment={}).cached


@pytest.mark.parametrize("damage", [flip_byte, delete])
def test_an_action_whose_outputs_are_damaged_is_not_served(workspace: Workspace, damage: Damage) -> None:
    store = workspace.store
    ref = require_ref(store, "features", SHARD)
    damage(store, object_key(ref.output("tensors.arrow").digest))
    delete(store, ref_key("features", SHARD))
    committed = workspace.run("features", SHARD, environment={})
    assert (committed.cached, committed.manifest.content) == (False, ref.content)
    assert verify_store(store).is_sound


@pytest.mark.parametrize("damage", [flip_byte, delete])
def test_a_damaged_registry_key_is_repaired_with_its_history(
    filled: Store, run: Callable[..., RunReport], damage: Damage
) -> None:
    run("e1", "promotion")
    key = registry_key("production")
    before = filled.read_key(key)
    assert before is not None
    damage(filled, key)
    assert production_release(filled) == "e1"
    found = verify_store(filled)
    assert key in {*found.corrupt, *found.missing}
    # Whatever release is registered next, here one that was superseded, puts the key right.
    report = run("r1", "promotion", force=True)
    after = filled.read_key(key)
    assert after is not None, sentences(report)
    assert after.data == before.data
    assert [record.release for record in read_history(filled, "production")] == ["e1", "r1"]
    assert verify_store(filled).is_sound


def test_a_forged_record_is_named(workspace: Workspace, run: Callable[..., RunReport]) -> None:
    store = workspace.store
    open_named_release(workspace, ReleaseRequest(release="e2", data_of="r1"))
    advance(workspace, "e2", [name for name in ASSETS if not ASSETS[name].is_sharded])
    manifest = manifest_of(store, "promotion", only("e2"))
    assert read_decision(store, manifest).decision == "rejected"
    head = store.read_key(registry_key("production"))
    assert head is not None
    forged = RegistryRecord(
        schema="mm.production/2",
        sequence=2,
        state="production",
        release="e2",
        model=manifest.input("model").manifest,
        dataset_release=manifest.input("dataset_release").manifest,
        decision=require_ref(store, "promotion", only("e2")).manifest,
        previous=store.put_bytes(head.data),
    )
    data = canonical_json(forged.model_dump(by_alias=True))
    store.put_bytes(data)
    write(store, registry_key("production"), data)
    assert registry_key("production") in verify_store(store).corrupt
    write(store, entry_key("production", 2), data)
    found = verify_store(store)
    assert entry_key("production", 2) in found.corrupt
    assert "says rejected" in found.reasons[entry_key("production", 2)]
    assert run("e2", "promotion").failed
