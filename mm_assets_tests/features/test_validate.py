import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mm_assets.configurations import ReleaseRequest, open_named_release
from mm_assets.errors import CheckError, SpecError
from mm_assets.features import validate
from mm_assets.features.bootstrap import ENCODER_FILE, bootstrap_encoder_bytes
from mm_assets.features.config import EncoderConfig, FeaturesConfig
from mm_assets.features.schema import EMBEDDINGS, tensors_schema
from mm_assets.features.validate import embedding_finding, modalities_finding, tensor_finding, validate_features
from mm_assets.identity.canonical import digest_bytes, digest_json, to_json
from mm_assets.materialize import Workspace
from mm_assets.modalities.table import NAMES
from mm_assets.store.action import read_objects
from mm_assets.store.manifest import Partition
from mm_assets.store.tables import read_parquet, write_parquet
from mm_assets_tests.by_hand import judge_by_hand, open_by_hand

PARTITION = Partition(release="r1", shard="0000")
IMAGE, AUDIO = bytes(64 * 64 * 3), np.zeros((3, 40), "<f4").tobytes()


@pytest.fixture
def workspace(store, settings, push_samples) -> Workspace:
    """Release r1 of four samples in one shard, with its snapshot, unchecked."""
    push_samples(store, "shapes", "d1", num_samples=4)
    workspace = Workspace(replace(settings, num_shards=1), store)
    open_named_release(workspace, ReleaseRequest(release="r1", drops=(("shapes", "d1"),), configuration="smoke"))
    workspace.run("snapshot", PARTITION, environment={})
    return workspace


def _tensors(**changed: object) -> pa.Table:
    row = {"id": "s/d/1", "text": [1, 5, 2], "image": IMAGE, "audio": AUDIO} | changed
    return pa.Table.from_pylist([row], schema=tensors_schema(FeaturesConfig()))


def test_features_need_a_passed_check_upstream(workspace):
    with pytest.raises(CheckError, match="snapshot r1/0000: was not checked under the rules in force"):
        workspace.resolve("features", PARTITION, {})
    judge_by_hand(workspace, "snapshot", PARTITION, problem="rows differ")
    with pytest.raises(CheckError, match="snapshot r1/0000: failed its check: rows differ"):
        workspace.resolve("features", PARTITION, {})


def test_actions_name_what_is_read_and_their_environment(workspace):
    workspace.check("snapshot", PARTITION)
    features = workspace.run("features", PARTITION, environment={})
    workspace.check("features", PARTITION)
    first = workspace.resolve("features", PARTITION, {"torch": "1"})
    assert first.fingerprint == workspace.resolve("features", PARTITION, {"torch": "2"}).fingerprint
    assert first.environment["libsndfile"]
    assert [item["role"] for item in read_objects(first.inputs)] == [
        "snapshot/samples.parquet",
        "snapshot/samples.tar",
    ]
    second = workspace.resolve("embeddings", PARTITION, {"torch": "1"})
    assert second.environment == {"torch": "1"}
    outputs = features.manifest
    encoder = workspace.spec("r1").encoder["digest"]
    assert read_objects(second.inputs) == [
        {"role": "features/tensors.arrow", "digest": outputs.output("tensors.arrow").digest},
        {"role": f"encoder/{ENCODER_FILE}", "digest": encoder},
    ]
    assert encoder == digest_bytes(bootstrap_encoder_bytes(EncoderConfig()))


def test_unknown_encoder_kind_is_refused(store, settings):
    open_by_hand(store, "r9", encoder={"kind": "owls", "digest": digest_json("owls")})
    message = "release r9: encoder kind 'owls' is unknown: expected 'bootstrap', 'towers' or 'pretrained'"
    with pytest.raises(SpecError, match=message):
        Workspace(settings, store).resolve("embeddings", Partition(release="r9", shard="0000"), {})


def test_every_field_of_the_configuration_changes_the_parameters():
    for config in (FeaturesConfig(), EncoderConfig()):
        names = to_json(config)
        assert isinstance(names, dict)
        for name, value in names.items():
            other = ("email@1",) if isinstance(value, list) else value + 1
            assert digest_json(replace(config, **{name: other})) != digest_json(config)


@pytest.mark.parametrize(
    "changed",
    [
        {"text": [1, 260, 2]},
        {"text": [0]},
        {"image": IMAGE[:-1]},
        {"audio": AUDIO[:-4]},
        {"audio": np.full((3, 40), np.nan, "<f4").tobytes()},
        {"audio": b""},
    ],
)
def test_wrong_tensor_is_found_by_id(changed):
    assert tensor_finding(_tensors()).passed
    finding = tensor_finding(_tensors(**changed))
    assert not finding.passed
    assert finding.failing_ids == ("s/d/1",)


def test_vectors_that_are_not_of_length_one_are_found_by_id():
    rows = [
        {"id": name, "text": vector}
        for name, vector in (("a", [1.0, 0.0]), ("b", [0.5, 0.0]), ("c", [np.nan, 0]), ("d", None))
    ]
    finding = embedding_finding("text", pa.Table.from_pylist(rows, schema=EMBEDDINGS))
    assert finding.failing_ids == ("b", "c")
    assert embedding_finding("image", pa.Table.from_pylist(rows, schema=EMBEDDINGS)).passed


def test_too_many_dead_letters_fail_the_gate_and_a_poor_sample_is_named(make_features, store, rules, to_wav):
    clipped = to_wav(np.where(np.arange(8_000) % 40 < 20, 1.0, -1.0).astype(np.float32), 16_000)
    samples = {f"s/d/{number}": {"wav": clipped} for number in range(3)} | {"s/d/bad": {"txt": b"\xff"}}
    findings = {finding.rule: finding for finding in validate_features(store, make_features(samples).manifest, rules)}
    assert findings["rows"].passed
    assert not findings["max_dead_letter_fraction"].passed
    assert "1 of 4" in findings["max_dead_letter_fraction"].detail
    overdriven = findings["expect_column_values_to_be_between(clipping_fraction)"]
    assert not overdriven.passed
    assert overdriven.failing_ids == ("s/d/0", "s/d/1", "s/d/2")


def test_features_of_other_samples_than_the_snapshot_has_are_found(make_features, store, rules, tmp_path):
    made = make_features({"s/d/a": {"txt": b"one"}, "s/d/b": {"txt": b"two"}}).manifest
    signals = read_parquet(store.fetch(made.output("signals.parquet").digest, tmp_path))
    other = signals.set_column(0, signals.schema.field("id"), pa.array(["s/d/a", "s/d/x"]))
    digest = store.put_file(write_parquet(other, tmp_path / "other.parquet"))
    outputs = [
        output.model_copy(update={"digest": digest}) if output.name == "signals.parquet" else output
        for output in made.outputs
    ]
    found = validate_features(store, made.model_copy(update={"outputs": outputs}), rules)
    rows = next(finding for finding in found if finding.rule == "rows")
    assert not rows.passed
    assert rows.failing_ids == ("s/d/b", "s/d/x")


@pytest.mark.parametrize(
    ("had", "has", "source", "passed"),
    [
        (("video",), ("video", "audio"), "video", True),
        (("video",), ("video",), None, True),
        (("video", "audio"), ("video", "audio"), "file", True),
        (("text",), ("text", "audio"), "video", False),
        (("text",), ("text", "image"), None, False),
        (("text", "image"), ("text",), None, False),
        (("video",), ("video", "audio"), "file", False),
    ],
)
def test_features_add_no_modality_but_what_a_track_holds(had, has, source, passed):
    def table(present):
        return pa.table({"id": ["a"], **{f"has_{name}": [name in present] for name in NAMES}})

    made = table(has).append_column("audio_origin", pa.array([source], pa.string()))
    finding = modalities_finding(table(had), made)
    assert finding.passed == passed
    assert finding.failing_ids == (() if passed else ("a",))


@pytest.mark.parametrize("name", ["bootstrap", "config", "inputs", "validate", "preview", "extract"])
def test_modules_of_the_code_server_import_no_torch(name):
    code = f"import mm_assets.features.{name}, sys; sys.exit('torch' in sys.modules)"
    root = Path(validate.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
