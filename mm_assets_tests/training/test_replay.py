"""A model is proven by training pieces of it again; two models are told apart by where they part."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load_file, save, save_file

from mm_assets.errors import ObjectCorruptError, ObjectMissingError, StageError, UsageError
from mm_assets.identity.canonical import canonical_json, digest_json
from mm_assets.launchers.environment import stage_environment
from mm_assets.lineage.bisect import bisect_models, first_planned
from mm_assets.operations.replay_model import Fact, judge, replay_model
from mm_assets.settings import Settings, read_settings
from mm_assets.store.client import make_client
from mm_assets.store.manifest import Manifest, NamedDigest, content_digest
from mm_assets.store.objects import Store, object_key
from mm_assets.training.chain import CheckpointRecord
from mm_assets.training.differences import differing_tensors, differing_values
from mm_assets_tests.conftest import MOTO_KEYS
from mm_assets_tests.training.conftest import Bench, build_bench

pytestmark = pytest.mark.integration

#: Seeds that choose these of three segments.
FIRST_AND_LAST, MIDDLE_AND_FIRST = 5, 4


@pytest.fixture(scope="module")
def model(moto_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Manifest]:
    """Release r1 with three segments of two steps, trained in this environment."""
    bench = open_bench(moto_endpoint, tmp_path_factory.mktemp("model"))
    bench.plan()
    committed = bench.workspace().run("model", bench.partition, environment=stage_environment())
    return bench.store, committed.manifest


def open_bench(endpoint: str, folder: Path) -> Bench:
    client = make_client(endpoint, MOTO_KEYS)
    bucket = f"b-{uuid4().hex}"
    client.create_bucket(Bucket=bucket)
    store = Store(client=client, bucket=bucket, prefix="store")
    return build_bench(store, read_settings({"MM_HOME": str(folder / "home")}), folder / "bench")


def put(store: Store, manifest: Manifest) -> str:
    return store.put_bytes(manifest.encode())


def forge(store: Store, model: Manifest, number: int, **changed: str) -> str:
    """The digest of a manifest like the model's, whose checkpoint ``number`` names other objects."""
    document = json.loads(store.get_bytes(model.output("checkpoints.json").digest))
    document["checkpoints"][number] |= changed
    return put_checkpoints(store, model, chained(document))


def chained(document: dict[str, Any]) -> dict[str, Any]:
    """The list of checkpoints, each naming the one before as it is in the list."""
    before: str | None = None
    for entry in document["checkpoints"]:
        fields = {name: value for name, value in entry.items() if name != "record"} | {"previous": before}
        before = CheckpointRecord.model_validate(fields).digest
        entry |= fields | {"record": before}
    return document


def put_checkpoints(store: Store, model: Manifest, document: dict[str, Any]) -> str:
    """The digest of a manifest like the model's with this list of checkpoints."""
    data = canonical_json(document)
    digest = store.put_bytes(data)
    outputs = [
        output.model_copy(update={"digest": digest, "size_bytes": len(data)})
        if output.name == "checkpoints.json"
        else output
        for output in model.outputs
    ]
    return put(store, model.model_copy(update={"outputs": outputs, "content": content_digest(outputs)}))


def other_state(store: Store, model: Manifest, folder: Path, factor: float) -> str:
    """A state like that after the second segment, with every value a little larger."""
    listed = json.loads(store.get_bytes(model.output("checkpoints.json").digest))["checkpoints"]
    path = store.fetch(listed[1]["state"], folder)
    save_file(
        {name: np.asarray(value * np.float32(factor)) for name, value in load_file(path).items()}, folder / "other"
    )
    return store.put_bytes((folder / "other").read_bytes())


def test_a_model_is_trained_again_bit_for_bit_on_another_number_of_processes(model: tuple[Store, Manifest]) -> None:
    store, _ = model
    report = replay_model(store, "r1", num_segments=2, seed=FIRST_AND_LAST, world_size=2)
    assert (report.verdict, report.facts, report.difference) == ("BITWISE", (), None)
    assert [(entry.first_step, entry.last_step) for entry in report.segments] == [(0, 1), (4, 5)]
    assert all(entry.expected == entry.actual for entry in report.segments)


def test_weights_that_the_plan_does_not_lead_to_are_a_mismatch(model: tuple[Store, Manifest], tmp_path: Path) -> None:
    store, manifest = model
    forged = forge(store, manifest, 1, state=other_state(store, manifest, tmp_path, 1.5))
    report = replay_model(store, forged, num_segments=2, seed=MIDDLE_AND_FIRST, world_size=1)
    assert [entry.verdict for entry in report.segments] == ["BITWISE", "MISMATCH"]
    assert report.verdict == "MISMATCH"
    assert report.difference is not None
    assert report.difference.startswith("model.")


def test_on_another_machine_only_equal_bits_prove_something(model: tuple[Store, Manifest], tmp_path: Path) -> None:
    store, manifest = model
    elsewhere = manifest.model_copy(update={"environment": {**manifest.environment, "cpu_vendor": "another"}})
    forged = forge(store, elsewhere, 1, state=other_state(store, manifest, tmp_path, 1.5))
    report = replay_model(store, forged, num_segments=2, seed=MIDDLE_AND_FIRST, world_size=1)
    assert [entry.verdict for entry in report.segments] == ["BITWISE", "NOT_COMPARABLE"]
    assert report.verdict == "NOT_COMPARABLE"
    assert [fact.name for fact in report.facts] == ["cpu_vendor"]


def test_samples_that_were_not_consumed_are_a_mismatch(model: tuple[Store, Manifest]) -> None:
    store, manifest = model
    listed = json.loads(store.get_bytes(manifest.output("checkpoints.json").digest))["checkpoints"]
    segment = json.loads(store.get_bytes(listed[0]["segment"]))
    segment["lanes"][1]["ids"][0] = "source/drop/else"
    forged = forge(store, manifest, 0, segment=store.put_bytes(canonical_json(segment)))
    report = replay_model(store, forged, num_segments=1, seed=FIRST_AND_LAST, world_size=1)
    assert report.verdict == "MISMATCH"
    assert report.difference is not None
    assert report.difference.startswith("step 0 lane 1: ids: expected ['source/drop/else'")


def test_a_damaged_input_is_a_mismatch_that_names_it(model: tuple[Store, Manifest]) -> None:
    store, manifest = model
    digest = manifest.input("batch_plan").digest("plan.parquet")
    key = object_key(digest)
    current = store.read_key(key)
    assert current is not None
    assert store.replace_key(key, current.data[:-1] + b"!", current.etag)
    report = replay_model(store, "r1", num_segments=1, seed=1, world_size=1)
    assert (report.verdict, report.segments) == ("MISMATCH", ())
    assert report.difference is not None
    assert digest.removeprefix("sha256:") in report.difference
    assert store.put_bytes(current.data) == digest


@pytest.mark.parametrize(
    ("number", "changed", "named"),
    [
        (1, {"previous": "sha256:" + "0" * 64}, "the checkpoint of step 4 follows another one: expected sha256:"),
        (2, {"step": 3}, "the checkpoint of step 3 is not of the training of the one before, step 4"),
        (2, {"weights": "sha256:" + "0" * 64}, "the last one has other weights than the model: expected sha256:"),
    ],
)
def test_checkpoints_that_do_not_lead_to_the_model_are_a_mismatch(
    model: tuple[Store, Manifest], number: int, changed: dict[str, Any], named: str
) -> None:
    store, manifest = model
    document = json.loads(store.get_bytes(manifest.output("checkpoints.json").digest))
    document["checkpoints"][number] |= changed
    report = replay_model(store, put_checkpoints(store, manifest, document), num_segments=1, seed=1, world_size=1)
    assert (report.verdict, report.segments) == ("MISMATCH", ())
    assert str(report.difference).startswith(f"checkpoints.json: {named}")


def test_equal_values_in_other_bytes_are_not_the_same_bits(model: tuple[Store, Manifest], tmp_path: Path) -> None:
    store, manifest = model
    listed = json.loads(store.get_bytes(manifest.output("checkpoints.json").digest))["checkpoints"]
    path = store.fetch(listed[0]["state"], tmp_path)
    save_file(load_file(path), tmp_path / "other", metadata={"a": "remark"})
    forged = forge(store, manifest, 0, state=store.put_bytes((tmp_path / "other").read_bytes()))
    report = replay_model(store, forged, num_segments=2, seed=FIRST_AND_LAST, world_size=1)
    assert [entry.verdict for entry in report.segments] == ["MISMATCH", "BITWISE"]
    assert report.difference == "state: other bytes, equal values"


def test_a_model_that_cannot_be_replayed_is_one_sentence(
    model: tuple[Store, Manifest],
) -> None:
    store, manifest = model

    def refused(kind: type[Exception], ref: str, match: str, **options: int) -> None:
        with pytest.raises(kind, match=match):
            replay_model(store, ref, **({"num_segments": 1, "seed": 1, "world_size": 1} | options))

    document = json.loads(store.get_bytes(manifest.output("checkpoints.json").digest))
    empty = put_checkpoints(store, manifest, document | {"checkpoints": []})
    refused(ObjectCorruptError, empty, r"model r1: checkpoints\.json .* is empty: expected one checkpoint or more")
    first = [{"schema": "mm.checkpoint/1", "step": 2}]
    older = put_checkpoints(store, manifest, document | {"checkpoints": first})
    refused(UsageError, older, "model r1: was trained by the first version")
    with pytest.raises(UsageError, match="model r1: was trained by the first version"):
        bisect_models(store, "r1", older)
    refused(UsageError, "r1", "--segments 0: trains nothing again", num_segments=0)
    for size in (0, 3, 8):
        refused(UsageError, "r1", f"--world-size {size}: .* power of two up to 4, got {size}", world_size=size)
    gone = [
        entry.model_copy(update={"outputs": [NamedDigest(name=item.name, digest=digest_json("gone")) for item in
                                             entry.outputs]})
        if entry.asset == "batch_plan" else entry
        for entry in manifest.inputs
    ]  # fmt: skip
    without_plan = put(store, manifest.model_copy(update={"inputs": gone}))
    refused(ObjectMissingError, without_plan, "model r1: cannot be trained again: ")


def test_a_process_that_dies_proves_nothing(model: tuple[Store, Manifest], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else is not as it was: a full disk or too little memory is no property of the model."""
    store, manifest = model
    elsewhere = put(
        store, manifest.model_copy(update={"environment": {**manifest.environment, "cpu_vendor": "another"}})
    )
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(StageError, match="training: a process ended with status 1"):
        replay_model(store, elsewhere, num_segments=1, seed=1, world_size=1)


def test_code_that_makes_another_network_is_told_before_it_is_trained(model: tuple[Store, Manifest]) -> None:
    store, manifest = model
    weights = save({"other": np.zeros((2, 3), np.float32)})
    digest = store.put_bytes(weights)
    outputs = [
        output.model_copy(update={"digest": digest, "size_bytes": len(weights)})
        if output.name == "weights.safetensors"
        else output
        for output in manifest.outputs
    ]
    other = manifest.model_copy(update={"outputs": outputs, "content": content_digest(outputs)})
    forged = forge(store, other, 2, weights=digest)
    report = replay_model(store, forged, num_segments=1, seed=1, world_size=1)
    assert (report.verdict, report.segments) == ("MISMATCH", ())
    assert str(report.difference).startswith("weights.safetensors: ")


def test_small_differences_are_within_the_tolerance_only_where_a_fact_explains_them(tmp_path: Path) -> None:
    values = np.linspace(1, 2, 12, dtype=np.float32).reshape(3, 4)
    save_file({"model.a": values, "optimizer.exp_avg.a": values}, tmp_path / "x")
    save_file({"model.a": values * np.float32(1.0001), "optimizer.exp_avg.a": values * 3}, tmp_path / "y")
    parts = list(differing_tensors(tmp_path / "x", tmp_path / "y"))
    assert [(part.where, part.is_close) for part in parts] == [("model.a", True), ("optimizer.exp_avg.a", False)]
    facts = (Fact(name="cpu_vendor", then="a", now="b"),)
    assert judge([], facts) == judge([], ()) == "BITWISE"
    assert judge(parts, facts) == "TOLERANCE"
    assert judge(parts, ()) == "MISMATCH"
    save_file({"model.a": values * np.float32(1.01)}, tmp_path / "z")
    far = list(differing_tensors(tmp_path / "x", tmp_path / "z"))
    assert [part.detail for part in far] == ["12 of 12 values differ, by 1.0e-02 of its norm", "is in one of both only"]
    assert judge(far, facts) == "NOT_COMPARABLE"


def test_the_first_differing_step_comes_before_what_follows_from_it() -> None:
    def segment(norm: float, loss: float) -> dict[str, Any]:
        lanes = [{"step": step, "lane": lane, "ids": ["a"], "loss": loss} for step in (4, 5) for lane in (0, 1)]
        return {"steps": [{"step": step, "gradient_norm": norm} for step in (4, 5)], "lanes": lanes}

    parts = list(differing_values(segment(1.0, 2.0), segment(1.0001, 2.5)))
    assert [part.where for part in parts[:3]] == ["step 4 lane 0", "step 4 lane 1", "step 4"]
    assert [part.is_close for part in parts[:3]] == [False, False, True]
    assert list(differing_values(segment(1.0, 2.0), segment(1.0, 2.0))) == []


def test_two_models_part_where_their_plans_do(
    model: tuple[Store, Manifest], settings: Settings, tmp_path: Path
) -> None:
    store, _ = model
    other = build_bench(store, settings, tmp_path / "bench", release="r2", num_samples=30)
    other.plan()
    other.train()
    report = bisect_models(store, "r1", "r2")
    assert not report.is_equal
    assert "inputs.batch_plan/plan.parquet" in {cause.name for cause in report.causes}
    assert report.last_equal_step == 0
    assert report.parts[0].startswith("plan: source/drop/")
    assert report.parts[1].startswith("step 0 lane 0: ")
    assert report.parts[2].startswith("after step 1: model.")
    same = bisect_models(store, "r1", "r1")
    assert (same.is_equal, same.causes, same.parts, same.last_equal_step) == (True, (), (), 6)


def test_trainings_that_part_late_are_equal_until_then(model: tuple[Store, Manifest], tmp_path: Path) -> None:
    store, manifest = model
    forged = forge(store, manifest, 1, state=other_state(store, manifest, tmp_path, 2.0))
    report = bisect_models(store, "r1", forged)
    assert report.last_equal_step == 2
    assert [part.split(":")[0] for part in report.parts] == ["after step 3"]


def test_trainings_with_checkpoints_at_other_steps_are_compared_at_the_common_ones(
    model: tuple[Store, Manifest], settings: Settings, tmp_path: Path
) -> None:
    store, manifest = model
    rarely = build_bench(store, settings, tmp_path / "bench", release="r3", checkpoint_every=4)
    rarely.plan()
    rarely.train()
    report = bisect_models(store, "r1", "r3")
    assert (report.is_equal, report.last_equal_step, report.parts) == (True, 6, ())
    forged = forge(store, manifest, 1, state=other_state(store, manifest, tmp_path, 2.0))
    report = bisect_models(store, forged, "r3")
    assert report.last_equal_step == 0
    assert [part.split(":")[0] for part in report.parts] == ["after step 3"]
    document = json.loads(store.get_bytes(manifest.output("checkpoints.json").digest))
    early = put_checkpoints(store, manifest, document | {"checkpoints": document["checkpoints"][:1]})
    assert bisect_models(store, early, "r3").parts == ("checkpoints: no step is in both: one has 2, the other 4, 6",)


def test_plans_that_differ_in_any_column_name_it() -> None:
    columns = {"step": [0, 0], "lane": [0, 1], "slot": [0, 0], "id": ["a", "b"], "start": [0, 4], "note": ["x", None]}
    plan = pa.table(columns)

    def changed(**other: Any) -> str:
        return first_planned([plan, pa.table(columns | other)])

    assert changed(start=[0, 5]) == "plan: b at step 0 lane 1 slot 0: start is 4 in one, 5 in the other"
    assert changed(note=["x", "y"]) == "plan: b at step 0 lane 1 slot 0: note is None in one, y in the other"
    assert changed(id=["c", "b"]) == "plan: a at step 0 lane 0 slot 0 in one is c at step 0 lane 0 slot 0 in the other"
    assert changed(more=[1, 2]) == "plan: columns more are in one of both only"
    assert changed() == "plan: the first 2 slots are the same, in other bytes"
    assert first_planned([plan, plan.slice(0, 1)]) == "plan: the first 1 slots are the same, one has 1 more"


def test_a_training_that_goes_on_where_another_ends_is_told_so(model: tuple[Store, Manifest]) -> None:
    store, manifest = model
    document = json.loads(store.get_bytes(manifest.output("checkpoints.json").digest))
    shorter = put_checkpoints(store, manifest, document | {"checkpoints": document["checkpoints"][:2]})
    report = bisect_models(store, "r1", shorter)
    assert (report.last_equal_step, report.parts) == (4, ("training: the same up to step 3, where one of both ends",))


def test_a_model_that_does_not_exist_is_a_usage_error(store: Store) -> None:
    with pytest.raises(UsageError, match="release r9: has no model"):
        replay_model(store, "r9", num_segments=1, seed=0, world_size=1)
