"""An encoder made of a model's towers embeds as the model does, and is pinned by digest."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors.torch import save

from mm_assets.batching.samples import TensorFile
from mm_assets.checks.rules import rules_in_force
from mm_assets.configurations import SMOKE, ReleaseRequest, open_named_release, pin_towers
from mm_assets.errors import SpecError, StageError, UsageError
from mm_assets.features.config import TOWERS_CODE, EncoderConfig
from mm_assets.features.embed import compute_embeddings, embed_table
from mm_assets.features.inputs import TOWERS_ROOTS, resolve_embeddings
from mm_assets.features.production import towers_encoder_bytes
from mm_assets.features.towers import load_towers
from mm_assets.features.validate import validate_embeddings
from mm_assets.identity.canonical import canonical_json, digest_bytes, to_json
from mm_assets.identity.code import closure, code_digest
from mm_assets.materialize import Workspace, packaged_rules
from mm_assets.releases.inputs import InputContext
from mm_assets.store.commit import Attempt
from mm_assets.store.job import Job
from mm_assets.store.manifest import Input, NamedDigest, Partition
from mm_assets.store.tables import map_arrow, read_parquet
from mm_assets.training.network import build_network
from mm_assets.training.predict import predict
from mm_assets_tests.by_hand import action_of, commit_files, input_of, open_by_hand

DIM = 16
CONFIG = EncoderConfig(dim=DIM)
MODEL = replace(SMOKE.training.model, projection_dim=DIM)
PARTITION = Partition(release="r1", shard="0000")


@pytest.fixture(scope="module")
def model():
    """A network, and the two files that a model's partition would have of it."""
    layout = {"pack_tokens": 512, "image_size": 64, "image_patch": 16, "num_mels": 40, "audio_stack": 4}
    described = {"model": to_json(asdict(MODEL)), "layout": layout, "classes": ["a", "b"]}
    torch.manual_seed(3)
    network = build_network(described)
    return network.eval(), canonical_json(described), save(network.state_dict())


@pytest.fixture
def features(make_features, make_tone, make_blocks, to_wav, to_picture):
    samples = {
        f"s/d/{number:02d}": {
            "txt": f"house number {number} of street {number % 5}".encode(),
            "png": to_picture(make_blocks(number)),
            "wav": to_wav(make_tone(200 + 150 * number, 0.2 + number / 50, 16_000), 16_000),
        }
        for number in range(12)
    }
    del samples["s/d/07"]["txt"], samples["s/d/08"]["png"], samples["s/d/09"]["wav"]
    return make_features(samples)


def test_towers_embed_as_the_model_does(model, features, store, tmp_path):
    network, described, weights = model
    (tmp_path / "encoder").write_bytes(towers_encoder_bytes(described, weights, CONFIG))
    encoder = load_towers(str(tmp_path / "encoder"), dim=DIM, digest="d")
    path = store.fetch(features.manifest.output("tensors.arrow").digest, tmp_path)
    made = embed_table(encoder, map_arrow(path), microbatch_size=5)
    file = TensorFile(path)
    expected = predict(network, [file.read(row) for row in range(12)], batch_size=4)
    for name, (rows, vectors) in made.items():
        assert rows.tolist() == np.flatnonzero(expected.present[name]).tolist()
        np.testing.assert_allclose(vectors.numpy(), expected.embeddings[name][rows.numpy()], atol=1e-5)


def test_embeddings_of_towers_pass_their_check_whatever_the_micro_batch(model, features, store, rules, tmp_path):
    _, described, weights = model
    digest = store.put_bytes(towers_encoder_bytes(described, weights, CONFIG))
    outputs = [NamedDigest(name="encoder.safetensors", digest=digest)]
    encoder = Input(asset="encoder", partition={"kind": "towers"}, manifest=digest, outputs=outputs)
    params = {**to_json(CONFIG), TOWERS_CODE: digest_bytes(b"code")}
    action = action_of("embeddings", [input_of(features), encoder], params)
    made = []
    for size in (1, 5):
        folder = tmp_path / str(size)
        folder.mkdir()
        result = compute_embeddings(
            Job(store=store, action=action, workdir=folder, placement={"microbatch_size": size})
        )
        made.append(Attempt(store, action, PARTITION).commit_result(result).manifest)
    assert made[0].content == made[1].content
    assert [finding for finding in validate_embeddings(store, made[0], rules) if not finding.passed] == []
    path = store.fetch(made[0].output("embeddings.parquet").digest, tmp_path)
    assert len(read_parquet(path)["text"][0].as_py()) == DIM


def test_a_model_always_gives_the_same_encoder_and_only_its_towers_are_kept(model, store, tmp_path):
    _, described, weights = model
    data = towers_encoder_bytes(described, weights, CONFIG)
    assert data == towers_encoder_bytes(described, weights, CONFIG)
    assert len(data) < len(weights)
    files = {"config.json": tmp_path / "c", "weights.safetensors": tmp_path / "w"}
    files["config.json"].write_bytes(described)
    files["weights.safetensors"].write_bytes(weights)
    committed = commit_files(store, action_of("model"), Partition(release="r1"), files)
    pinned = pin_towers(store, committed.manifest_digest, CONFIG)
    assert pinned == {"kind": "towers", "digest": digest_bytes(data), "model": committed.manifest_digest}
    assert store.get_bytes(pinned["digest"]) == data


def test_towers_that_do_not_fit_are_refused_by_name(model, features, store, tmp_path):
    _, described, weights = model
    with pytest.raises(SpecError, match="expected 64, got 16"):
        towers_encoder_bytes(described, weights, EncoderConfig())
    (tmp_path / "encoder").write_bytes(towers_encoder_bytes(described, weights, CONFIG))
    encoder = load_towers(str(tmp_path / "encoder"), dim=DIM, digest="d")
    assert encoder.misfit({"image_size": 64, "num_mels": 80}) == "num_mels 40, got 80"
    (tmp_path / "other").write_bytes(save({"x": torch.zeros(1)}))
    with pytest.raises(StageError, match="encoder d: holds no towers"):
        load_towers(str(tmp_path / "other"), dim=DIM, digest="d")


def resolved(store, release, **encoder):
    """What embeddings are made of with that encoder; upstream assets are left out."""
    spec = open_by_hand(store, release, encoder={"digest": digest_bytes(b"e"), **encoder})
    nothing = dict.fromkeys(("take", "require_sound", "peek"), lambda *_: None)
    rules = rules_in_force(store, release, {}, packaged_rules())
    return resolve_embeddings(
        InputContext(store=store, spec=spec, partition=PARTITION, environment={}, rules=rules, reads={}, **nothing)
    )


def test_only_an_encoder_of_towers_depends_on_the_code_of_the_network(store):
    bootstrap, towers = resolved(store, "r1", kind="bootstrap"), resolved(store, "r2", kind="towers")
    assert TOWERS_CODE not in bootstrap.params
    assert towers.params[TOWERS_CODE] == code_digest(*TOWERS_ROOTS)
    assert {"mm_assets.modalities.layer", "mm_assets.modalities.image.embedder"} <= set(closure(*TOWERS_ROOTS))


def test_towers_of_production_need_a_model_in_production(store, settings):
    request = ReleaseRequest(release="r8", drops=(("zoo", "d1"),), configuration="smoke", encoder="production")
    with pytest.raises(UsageError, match="no model is in production"):
        open_named_release(Workspace(settings, store), request)
