"""A model from its spec alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_assets.errors import ObjectMissingError, SpecError, UsageError
from mm_assets.identity.canonical import digest_bytes, digest_json, to_json
from mm_assets.launchers.environment import stage_environment
from mm_assets.operations.train_spec import Trained, train_spec
from mm_assets.settings import Settings
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store
from mm_assets.training.spec_file import parse_training_spec
from mm_assets_tests.training.conftest import PLAN, TRAINING, Bench

Make = Callable[..., Bench]


@pytest.fixture
def model(make_bench: Make) -> Manifest:
    """A model that was trained in this machine's environment."""
    bench = make_bench()
    bench.plan()
    workspace = bench.workspace()
    environment = stage_environment()
    committed = workspace.run("model", bench.partition, environment=environment)
    return committed.manifest


def spec_of(store: Store, model: Manifest) -> dict[str, Any]:
    return json.loads(store.get_bytes(model.output("spec.json").digest))


def train(store: Store, settings: Settings, folder: Path, document: object) -> Trained:
    path = folder / "spec.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return train_spec(store, settings, path, folder / "model")


def test_a_spec_leads_to_the_model_that_it_lies_beside(
    store: Store, settings: Settings, model: Manifest, tmp_path: Path
) -> None:
    trained = train(store, settings, tmp_path, spec_of(store, model))
    assert trained.is_reproduced is True
    assert trained.outputs == {output.name: output.digest for output in model.outputs}
    weights = (tmp_path / "model" / "weights.safetensors").read_bytes()
    assert digest_bytes(weights) == model.output("weights.safetensors").digest


def test_a_changed_spec_without_its_fingerprint_leads_to_another_model(
    store: Store, settings: Settings, model: Manifest, tmp_path: Path
) -> None:
    document = spec_of(store, model)
    del document["fingerprint"]
    document["optimizer"]["peak_lr"] *= 2
    trained = train(store, settings, tmp_path, document)
    assert trained.is_reproduced is None
    assert trained.outputs["weights.safetensors"] != model.output("weights.safetensors").digest


def document_by_hand() -> dict[str, Any]:
    """A spec as a training writes it."""
    body = {
        "schema": "mm.training/2",
        "inputs": [{"role": "batch_plan/plan.parquet", "digest": "sha256:" + "0" * 64}],
        "seed": 1,
        "plan": to_json(PLAN),
        "restart": "resume from the last checkpoint",
        "environment": stage_environment(),
        **to_json(TRAINING),
    }
    return {**body, "fingerprint": digest_json(body)}


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "value": (lambda spec: spec["optimizer"].update(peak_lr=1.0), "changed after its fingerprint was taken"),
    "unknown key": (lambda spec: spec["model"].update(depth=3), "key model.depth is unknown: expected one of"),
    "unknown key of the plan": (lambda spec: spec["plan"].update(x=3), "key x is unknown: expected one of audio_stack"),
    "missing key": (lambda spec: spec["loss"].pop("text"), "key loss.text is missing: it decides the model"),
    "missing section": (lambda spec: spec.pop("seed"), "seed: Field required"),
    "other schema": (lambda spec: spec.update(schema="mm.training/1"), "schema: Input should be 'mm.training/2'"),
    "wrong type": (lambda spec: spec["model"].update(width="wide"), "model.width: Input should be a valid integer"),
    "out of range": (lambda spec: spec["model"].update(heads=3), "model.heads: expected a divisor of model.width"),
    "other environment": (
        lambda spec: (spec.pop("fingerprint"), spec["environment"].update(machine="pdp11")),
        "was trained in another environment: machine: expected pdp11, got ",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_unusable_spec_is_one_sentence(store: Store, settings: Settings, tmp_path: Path, name: str) -> None:
    document = document_by_hand()
    change, message = CHANGES[name]
    change(document)
    with pytest.raises(SpecError, match=rf"spec\.json: .*{message}"):
        train(store, settings, tmp_path, document)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema": NaN}'])
def test_what_is_no_spec_is_one_sentence(text: str) -> None:
    with pytest.raises(SpecError, match="x: is not a training spec: "):
        parse_training_spec(text.encode(), "x")


def test_a_spec_whose_objects_the_store_lacks_names_the_first(store: Store, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ObjectMissingError, match="dataset_release, got 0"):
        train(store, settings, tmp_path, document_by_hand())


def test_files_are_never_written_over(store: Store, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.safetensors").write_bytes(b"precious")
    with pytest.raises(UsageError, match="holds something: expected a new or empty folder"):
        train(store, settings, tmp_path, document_by_hand())
    with pytest.raises(UsageError, match="does not exist: expected the spec.json of a model"):
        train_spec(store, settings, tmp_path / "none.json", tmp_path / "other")
