"""A store that the first version wrote is built upon; nobody loses a production model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mm_assets.checks.rules import replace_rules
from mm_assets.configurations import ReleaseRequest, open_named_release
from mm_assets.identity.canonical import digest_bytes
from mm_assets.lineage.explain import explain_sample
from mm_assets.lineage.trace import trace_model
from mm_assets.lineage.verify import verify_store
from mm_assets.materialize import Workspace
from mm_assets.pipeline import ASSETS, PROMOTION_RULES
from mm_assets.promotion.chain import read_history, read_production
from mm_assets.promotion.decision import read_decision
from mm_assets.promotion.record import UNNUMBERED, entry_key, registry_key
from mm_assets.release.shards import places, read_shards
from mm_assets.store.manifest import read_manifest
from mm_assets_tests.first_version.readers import FIRST, again, first_sample, manifest_of
from mm_assets_tests.stores import LENIENT_PROMOTION, advance

DATA_ASSETS = ("snapshot", "features", "embeddings", "dataset_release")
pytestmark = pytest.mark.e2e


def test_a_release_adds_to_it(lenient: Workspace, push_samples: Callable[..., Path]) -> None:
    push_samples(lenient.store, "shapes", "d1")
    request = ReleaseRequest(
        release="r2", drops=(("shapes", "d1"),), parent="r1", configuration="smoke", num_shards=2, use="training"
    )
    open_named_release(lenient, request)
    advance(lenient, "r2", DATA_ASSETS)
    store = lenient.store
    manifest = manifest_of(store, "dataset_release", "r2")
    assert [place.path for place in places(store, manifest)] == ["r1/0000", "r1/0001", "r2/0000", "r2/0001"]
    assert [shard.generation for shard in read_shards(store, manifest)[1]] == [0, 0, 1, 1]
    record = json.loads(store.get_bytes(manifest.output("record.json").digest))
    first = json.loads(store.get_bytes(manifest_of(store, "dataset_release", "r1").output("record.json").digest))
    assert [source["source"] for source in record["sources"]] == ["emoji", "shapes"]
    assert [drop["drop"] for drop in record["drops"]] == ["2026-11", "d1"]
    assert record["parent"] == first["checksums"]["merkle_root"]
    # Splits are inherited.
    row = first_sample(store)
    answer = explain_sample(store, "r2", row["id"])
    assert (answer["split"], answer["shard"]) == ("train", f"r1/{row['shard']}")
    assert verify_store(store).is_sound


def test_an_experiment_on_its_data_is_compared_with_its_model(lenient: Workspace) -> None:
    store = lenient.store
    before = read_production(store)
    open_named_release(lenient, ReleaseRequest(release="e1", data_of="r1", configuration="smoke", use="training"))
    computed = advance(lenient, "e1")
    assert set(computed) == set(ASSETS) - {"snapshot", "features", "embeddings"}
    decision = read_decision(store, manifest_of(store, "promotion", "e1"))
    assert before is not None
    weights = read_manifest(store, before.model).output("weights.safetensors").digest
    assert decision.champion is not None
    assert decision.champion.model == weights
    assert decision.comparison is not None
    assert decision.comparison.outcome in ("same_model", "not_worse")
    if decision.comparison.outcome == "not_worse":
        assert decision.comparison.num_shared == 4
    after = read_production(store)
    assert after is not None
    assert (after.release, after.sequence) == ("e1", 2)
    # The first version's head became the numbered record before it, byte for byte.
    entry = store.read_key(entry_key("production", 1))
    assert entry is not None
    assert entry.data == FIRST[registry_key("production")]
    assert after.previous == digest_bytes(entry.data)
    assert verify_store(store).is_sound
    assert advance(again(lenient), "e1") == dict.fromkeys(computed, 0) | {"registration": 1}


def test_running_it_again_recomputes_it_and_goes_on_with_the_history(workspace: Workspace) -> None:
    store = workspace.store
    rules = {PROMOTION_RULES: LENIENT_PROMOTION.encode()}
    replace_rules(store, "r1", workspace.rules("r1"), rules, reason="nine emoji teach nothing", by="test")
    assert verify_store(store).is_sound
    computed = advance(again(workspace), "r1")
    assert computed == {name: 2 if ASSETS[name].is_sharded else 1 for name in ASSETS}
    production = read_production(store)
    assert production is not None
    assert (production.release, production.sequence) == ("r1", 2)
    assert [record.sequence for record in read_history(store, "production")] == [2, UNNUMBERED]
    assert trace_model(store, "production")["release"] == "r1"
    assert verify_store(store).is_sound
