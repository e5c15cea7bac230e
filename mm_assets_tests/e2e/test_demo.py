"""The main job: what it makes, that it learns, and that running it again computes nothing."""

import hashlib
import io
import json
import tarfile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors
import webdataset

from mm_assets.store.manifest import Manifest, Partition, read_manifest
from mm_assets.store.objects import Store, object_key
from mm_assets.store.refs import require_ref

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

RESULT_KEYS = {
    "release", "dataset_release", "batch_plan", "model", "evaluation", "decision", "production", "num_samples",
    "num_dead_letters", "computed", "cached", "wall_s",
}  # fmt: skip
NUM_SHARDED, NUM_RELEASE_LEVEL, NUM_SHARDS = 3, 6, 4
NUM_PARTITIONS = NUM_SHARDED * NUM_SHARDS + NUM_RELEASE_LEVEL


@pytest.fixture(scope="module")
def store(demo_place: Any, demo: dict[str, Any]) -> Store:
    del demo
    return demo_place.store()


def manifest_of(store: Store, asset: str, shard: str | None = None) -> Manifest:
    return read_manifest(store, require_ref(store, asset, Partition(release="demo", shard=shard)).manifest)


def output(store: Store, manifest: Manifest, name: str) -> bytes:
    """The bytes as any S3 client would read them, by key alone."""
    digest = manifest.output(name).digest
    with store.open_key(object_key(digest)) as body:
        data = body.read()
    assert "sha256:" + hashlib.sha256(data).hexdigest() == digest
    return data


def test_the_result_has_the_documented_keys(demo: dict[str, Any]) -> None:
    assert set(demo) >= RESULT_KEYS
    assert demo["num_samples"] >= 2000
    # The registration is carried out, not computed.
    assert demo["computed"] == NUM_PARTITIONS - 1


def test_the_model_learns_and_is_promoted(demo: dict[str, Any], store: Store) -> None:
    report = json.loads(output(store, manifest_of(store, "evaluation"), "report.json"))
    assert len(report["classes"]) == 9
    assert report["overall"]["balanced_accuracy"] >= 0.35
    assert {entry["slice"] for entry in report["slices"]} >= {"modalities", "language"}
    assert sum(entry["n"] for entry in report["slices"] if entry["slice"] == "language") == report["overall"]["n"]
    assert report["retrieval"]["image_to_text"]["recall_at_10"] > report["retrieval"]["image_to_text"]["chance_at_10"]
    assert demo["decision"] == "promoted"
    assert demo["production"] == demo["model"]


def test_a_second_run_computes_nothing_and_names_the_same_digests(demo_place: Any, demo: dict[str, Any]) -> None:
    again = demo_place.result("mm", "demo")
    assert (again["computed"], again["cached"]) == (0, NUM_PARTITIONS)
    assert again["wall_s"] < 60  # 20 s on an idle machine
    for name in RESULT_KEYS - {"computed", "cached", "wall_s"}:
        assert again[name] == demo[name], name


def test_a_person_sees_tables_of_at_most_100_columns(demo_place: Any, demo: dict[str, Any]) -> None:
    answer = demo_place.run("mm", "demo")
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert max(len(line) for line in lines if "s3://" not in line and "/" not in line) <= 100
    for text in (
        "Stages",
        "Accuracy on the test split",
        "Retrieval",
        "Promotion gates",
        "Decision: promoted",
        "make ui",
    ):
        assert text in answer.stdout
    assert demo["model"].removeprefix("sha256:")[:12] in answer.stdout


def test_a_language_of_one_emoji_never_crosses_the_split(store: Store, demo: dict[str, Any]) -> None:
    del demo
    table = pq.read_table(io.BytesIO(output(store, manifest_of(store, "dataset_release"), "samples.parquet")))
    splits: dict[str, set[str]] = {}
    for row in table.select(["group", "split"]).to_pylist():
        splits.setdefault(row["group"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())


def test_shards_are_read_by_plain_tarfile_and_webdataset(store: Store, tmp_path: Any) -> None:
    manifest = manifest_of(store, "snapshot", "0000")
    path = tmp_path / "samples.tar"
    path.write_bytes(output(store, manifest, "samples.tar"))
    with tarfile.open(path) as tar:
        names = tar.getnames()
    assert names == sorted(names)
    rows = pq.read_table(io.BytesIO(output(store, manifest, "samples.parquet"))).to_pylist()
    read = list(webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False))
    assert len(read) == len(rows)
    assert sum("png" in sample for sample in read) == sum(row["has_image"] for row in rows)


def test_tensors_weights_and_tables_are_read_by_plain_libraries(store: Store) -> None:
    tensors = pa.ipc.open_file(output(store, manifest_of(store, "features", "0001"), "tensors.arrow")).read_all()
    assert {"id", "text", "image", "audio"} <= set(tensors.column_names)
    weights = safetensors.deserialize(output(store, manifest_of(store, "model"), "weights.safetensors"))
    assert weights
    for asset, name in (("dataset_release", "samples.parquet"), ("batch_plan", "plan.parquet"),
                        ("model", "ledger.parquet"), ("evaluation", "predictions.parquet")):  # fmt: skip
        assert pq.read_table(io.BytesIO(output(store, manifest_of(store, asset), name))).num_rows > 0


def test_release_commands_tell_how_far_it_is(demo_place: Any, demo: dict[str, Any]) -> None:
    del demo
    shown = demo_place.result("mm", "release", "show", "demo")
    assert shown["release"] == "demo"
    assert shown["stages"]["snapshot"] == {"state": "passed", "done": NUM_SHARDS, "total": NUM_SHARDS}
    assert {entry["state"] for entry in shown["stages"].values()} == {"passed"}
    listed = demo_place.result("mm", "release", "list")
    assert [entry["spec"] for entry in listed["releases"]] == [shown["spec"]]
    assert listed["stages"]["demo"] == shown["stages"]


def test_verify_finds_a_sound_store(demo_place: Any, demo: dict[str, Any]) -> None:
    del demo
    result = demo_place.result("mm", "verify")
    assert (result["corrupt"], result["missing"]) == ([], [])
    assert result["objects"] > NUM_PARTITIONS


def test_trace_and_explain_answer_for_a_trained_sample(demo_place: Any, demo: dict[str, Any], store: Store) -> None:
    ledger = pq.read_table(io.BytesIO(output(store, manifest_of(store, "model"), "ledger.parquet"))).to_pylist()
    sample = ledger[0]["ids"][0]
    traced = demo_place.result("mm", "trace", "--sample", sample)
    assert {"source", "shards", "releases", "steps", "models"} <= set(traced)
    assert {"model", "step", "lane", "slot"} <= set(traced["steps"][0])
    assert demo["model"] in json.dumps(traced["models"])
    explained = demo_place.result("mm", "explain", "--release", "demo", "--sample", sample.rpartition("/")[2])
    assert explained["selected"] is True
    assert explained["reasons"] == []
    assert explained["signals"]


@pytest.mark.parametrize("reference", ["production", "demo", "digest"])
def test_trace_of_a_model_names_what_it_was_made_from(demo_place: Any, demo: dict[str, Any], reference: str) -> None:
    result = demo_place.result("mm", "trace", "--model", demo["model"] if reference == "digest" else reference)
    assert {"model", "spec", "plan", "dataset_release", "snapshot_shards", "drops"} <= set(result)
    assert result["model"] == demo["model"]
    assert result["dataset_release"] == demo["dataset_release"]
    assert len(result["snapshot_shards"]) == NUM_SHARDS


def test_run_of_a_finished_release_computes_nothing(demo_place: Any, demo: dict[str, Any]) -> None:
    del demo
    result = demo_place.result("mm", "run", "--release", "demo", "--stage", "snapshot")
    registered = result.pop("registered")
    assert result == {"release": "demo", "computed": 0, "cached": NUM_SHARDS, "failed": []}
    assert registered["moved"] == ["candidate", "production"]
