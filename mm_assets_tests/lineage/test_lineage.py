import json

import pyarrow as pa
import pytest

from mm_assets.errors import UsageError
from mm_assets.lineage.trace import trace_model, trace_sample
from mm_assets.promotion.record import RegistryRecord


def record(history, model, previous=None):
    return RegistryRecord(
        schema="mm.production/2",
        sequence=2 if previous else 1,
        state="production",
        release="r1",
        model=model,
        dataset_release=history.digest("dataset_release r1"),
        decision=model,
        previous=previous,
    )


def test_sample_is_traced_to_its_shard_release_steps_and_model(history):
    trace = trace_sample(history.store, "zoo/d1/a")
    model = history.digest("model r1")
    assert trace["source"] == "zoo"
    assert trace["shards"] == ["r1/0000"]
    assert trace["objects"] == ["0000.tar"]
    assert trace["releases"] == ["r1"]
    assert trace["models"] == [model]
    assert trace["steps"] == [
        {"model": model, "step": 0, "lane": 1, "pack": 0, "slot": 3},
        {"model": model, "step": 2, "lane": 1, "pack": 0, "slot": 5},
    ]
    json.dumps(trace)


def test_bare_key_names_the_same_sample(history):
    assert trace_sample(history.store, "a") == trace_sample(history.store, "zoo/d1/a")


def test_sample_that_was_planned_but_not_consumed_reached_no_model(history):
    trace = trace_sample(history.store, "b")
    assert (trace["releases"], trace["steps"], trace["models"]) == (["r1"], [], [])


def test_sample_that_was_not_selected_is_in_no_release(history):
    assert trace_sample(history.store, "c")["releases"] == []


def test_dead_letter_is_traced_with_its_reason(history):
    trace = trace_sample(history.store, "broken")
    assert trace["dead_letters"] == [{"shard": "r1/0000", "stage": "features", "reason": "truncated"}]
    assert trace["models"] == []


def test_unknown_sample_is_a_usage_error(history):
    with pytest.raises(UsageError, match="sample nobody: is unknown"):
        trace_sample(history.store, "nobody")


def test_bare_key_of_two_samples_is_ambiguous(history):
    history.shard("0002", ["x/a"])
    assert trace_sample(history.store, "x/a")["id"] == "zoo/d1/x/a"
    assert trace_sample(history.store, "a")["id"] == "zoo/d1/a"
    twin = {"samples.parquet": pa.table({"id": ["farm/d1/a"], "object": ["f.tar"]})}
    empty = pa.table({name: pa.array([], pa.string()) for name in ("id", "object", "stage", "reason")})
    history.commit("snapshot", "r1/0003", twin | {"dead_letters.parquet": empty})
    with pytest.raises(UsageError, match=r"sample a: is ambiguous: 2 samples have this key: farm/d1/a, zoo/d1/a"):
        trace_sample(history.store, "a")


def test_model_is_traced_back_to_its_drops(history):
    trace = trace_model(history.store, "r1")
    assert trace["model"] == history.digest("model r1")
    assert trace["plan"] == history.digest("batch_plan r1")
    assert trace["dataset_release"] == history.digest("dataset_release r1")
    assert trace["spec"] == history.commits["model r1"].manifest.output("spec.json").digest
    assert trace["snapshot_shards"] == ["r1/0000", "r1/0001"]
    assert trace["drops"] == ["zoo/d1"]


def test_model_is_found_by_digest_and_as_production(history):
    model = history.digest("model r1")
    with pytest.raises(UsageError, match="no model is in production"):
        trace_model(history.store, "production")
    history.store.create_key("refs/registry/production.json", record(history, model).encode())
    assert trace_model(history.store, "production") == trace_model(history.store, model)


def test_model_that_only_the_registry_remembers_is_still_traced(history):
    model = history.digest("model r1")
    old = history.store.put_bytes(record(history, model).encode())
    newer = history.train(
        [{"step": 0, "lane": 0, "pack": 0, "slot": 0, "id": "zoo/d1/b"}],
        [{"step": 0, "lane": 0, "ids": ["zoo/d1/b"]}],
    )
    head = record(history, newer.manifest_digest, previous=old)
    history.store.create_key("refs/registry/production.json", head.encode())
    assert trace_sample(history.store, "a")["models"] == [model]


@pytest.mark.parametrize(
    ("ref", "named"), [("r9", "release r9: has no model"), (None, "expected the manifest of a model")]
)
def test_reference_to_no_model_is_a_usage_error(history, ref, named):
    with pytest.raises(UsageError, match=named):
        trace_model(history.store, ref or history.digest("dataset_release r1"))
