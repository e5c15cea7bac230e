"""Encoders with weights from elsewhere: kept by digest, run offline, and computed again alone."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mm_assets.cli import main
from mm_assets.configurations import ReleaseRequest, open_named_release
from mm_assets.errors import CommitConflictError, ObjectCorruptError, SpecError, StageError, UsageError
from mm_assets.features.config import EncoderConfig, FeaturesConfig
from mm_assets.features.embed import compute_embeddings
from mm_assets.features.kinds import PRETRAINED
from mm_assets.features.mel_bands import converted, our_front_end
from mm_assets.features.pretrained import parse_encoder, read_encoder
from mm_assets.features.pretrained_folder import read_folder, store_encoder
from mm_assets.features.pretrained_models import CLASSES, _decibels, _front_end, _normalized, load_pretrained
from mm_assets.features.pretrained_types import LIBRARIES, MODEL_TYPES
from mm_assets.features.validate import validate_embeddings
from mm_assets.identity.canonical import to_json
from mm_assets.lineage.verify import verify_store
from mm_assets.materialize import Workspace
from mm_assets.modalities.audio.mel import log_mel
from mm_assets.releases.encoders import find_encoder, name_encoder
from mm_assets.store.commit import Attempt
from mm_assets.store.job import Job
from mm_assets.store.manifest import Input, NamedDigest, Partition
from mm_assets.store.objects import object_key
from mm_assets.store.tables import map_arrow, read_parquet
from mm_assets_tests.by_hand import action_of, input_of
from mm_assets_tests.features.tiny_models import change, save_clap, save_clip, save_spectrogram_transformer

PARTITION = Partition(release="r1", shard="0000")
NUM_SAMPLES = 6


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of tiny models by name; ``other`` is ``clip`` with other weights."""
    root = tmp_path_factory.mktemp("models")
    return {
        "clip": save_clip(root / "clip"),
        "other": save_clip(root / "other", seed=1),
        "clap": save_clap(root / "clap"),
        "ast": save_spectrogram_transformer(root / "ast"),
    }


@pytest.fixture
def samples(make_tone, make_blocks, to_wav, to_picture):
    samples = {
        f"s/d/{number}": {
            "txt": f"house number {number}: größer {'x' * 9 * number}".encode(),
            "png": to_picture(make_blocks(number)),
            "wav": to_wav(make_tone(200 + 150 * number, 0.2 + number / 3, 16_000), 16_000),
        }
        for number in range(NUM_SAMPLES)
    }
    del samples["s/d/1"]["txt"], samples["s/d/2"]["png"], samples["s/d/3"]["wav"]
    return samples


@pytest.fixture
def embed(make_features, store, tmp_path):
    """Embeds samples with the model of a folder; returns the features and the embeddings."""

    def run(folder, samples, *, dim=64, features=None, microbatch_size=64, **facts):
        digest, encoder = store_encoder(store, read_folder(folder))
        made = make_features(samples, features)
        outputs = [NamedDigest(name=file.name, digest=file.digest) for file in encoder.files]
        given = Input(asset="encoder", partition={"kind": PRETRAINED}, manifest=digest, outputs=outputs)
        params = {**to_json(EncoderConfig(dim=dim)), PRETRAINED: {"modalities": encoder.modalities, **facts}}
        action = action_of("embeddings", [input_of(made), given], params)
        workdir = tmp_path / f"embed{len(list(tmp_path.iterdir()))}"
        workdir.mkdir()
        placement = {"microbatch_size": microbatch_size}
        result = compute_embeddings(Job(store=store, action=action, workdir=workdir, placement=placement))
        return made, Attempt(store, action, PARTITION).commit_result(result)

    return run


def table(store, committed, name, tmp_path):
    return store.fetch(committed.manifest.output(name).digest, tmp_path)


def vectors(store, committed, modality, tmp_path):
    return read_parquet(table(store, committed, "embeddings.parquet", tmp_path)).column(modality).to_pylist()


def test_a_folder_always_becomes_the_same_encoder_and_one_file_decides_which(models, store):
    digest, encoder = store_encoder(store, read_folder(models["clip"]))
    assert store_encoder(store, read_folder(models["clip"]))[0] == digest
    assert read_encoder(store, digest) == encoder
    assert [file.name for file in encoder.files] == [
        "config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json",
    ]  # fmt: skip
    assert (encoder.model_type, encoder.dim, encoder.modalities) == ("clip", 64, ["text", "image"])
    assert store_encoder(store, read_folder(models["other"]))[0] != digest


def test_vectors_are_those_that_transformers_gives_by_itself(models, embed, store, samples, tmp_path):
    features, made = embed(models["clip"], samples)
    model = transformers.CLIPModel.from_pretrained(models["clip"], local_files_only=True).eval()
    tensors = map_arrow(table(store, features, "tensors.arrow", tmp_path))
    pixels = np.frombuffer(tensors.column("image")[0].as_buffer(), np.uint8).reshape(64, 64, 3)
    image = transformers.CLIPImageProcessorPil.from_pretrained(models["clip"])(pixels, return_tensors="pt")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(models["clip"] / "tokenizer.json"))
    text = tokenizer(samples["s/d/0"]["txt"].decode(), truncation=True, max_length=24, return_tensors="pt")
    with torch.inference_mode():
        expected = {
            "image": model.get_image_features(pixel_values=image["pixel_values"]).pooler_output,
            "text": model.get_text_features(input_ids=text["input_ids"]).pooler_output,
        }
    for modality, vector in expected.items():
        unit = torch.nn.functional.normalize(vector, dim=-1)[0].numpy()
        np.testing.assert_allclose(vectors(store, made, modality, tmp_path)[0], unit, atol=1e-5)


def test_embeddings_pass_their_check_and_it_says_what_the_encoder_embeds(
    models, embed, store, rules, samples, tmp_path
):
    made = [embed(models["clip"], samples, microbatch_size=size)[1] for size in (1, 64)]
    assert made[0].manifest.content == made[1].manifest.content
    findings = {finding.rule: finding for finding in validate_embeddings(store, made[0].manifest, rules)}
    assert all(finding.passed for finding in findings.values())
    assert findings["audio_absent"].detail == "audio: no vectors, since the encoder embeds text and image alone"
    assert vectors(store, made[0], "audio", tmp_path) == [None] * NUM_SAMPLES
    assert [value is None for value in vectors(store, made[0], "image", tmp_path)].count(True) == 1


def test_a_vector_of_what_the_encoder_does_not_embed_fails_the_check(models, embed, store, rules, samples):
    made = embed(models["clip"], samples)[1]
    facts = {**made.manifest.params, PRETRAINED: {"modalities": ["text"]}}
    lying = made.manifest.model_copy(update={"params": facts})
    findings = {finding.rule: finding for finding in validate_embeddings(store, lying, rules)}
    assert not findings["image_absent"].passed
    assert findings["image_absent"].num_failing == NUM_SAMPLES - 1


@pytest.mark.parametrize(
    ("name", "dim", "num_mels", "modalities"), [("clap", 64, 32, {"text", "audio"}), ("ast", 16, 40, {"audio"})]
)
def test_sound_is_embedded_by_models_of_mel_bands(
    name, dim, num_mels, modalities, models, embed, store, rules, samples, tmp_path
):
    config = FeaturesConfig(num_mels=num_mels)
    made = [embed(models[name], samples, dim=dim, features=config)[1] for _ in range(2)]
    assert made[0].manifest.content == made[1].manifest.content
    assert all(finding.passed for finding in validate_embeddings(store, made[0].manifest, rules))
    present = {
        modality
        for modality in ("text", "image", "audio")
        if any(value is not None for value in vectors(store, made[0], modality, tmp_path))
    }
    assert present == modalities
    with pytest.raises(StageError, match=rf"num_mels {num_mels}, got 24"):
        embed(models[name], samples, dim=dim, features=FeaturesConfig(num_mels=24))


def sounds(rate):
    """A tone and a sweep in noise, and noise that swells, two seconds each."""
    rng, t = np.random.default_rng(5), np.arange(2 * rate) / rate
    yield 0.5 * np.sin(2 * np.pi * 440 * t) + 0.05 * rng.normal(size=len(t))
    yield 0.5 * np.sin(2 * np.pi * (100 + 1500 * t) * t) * np.exp(-t) + 0.01 * rng.normal(size=len(t))
    yield 0.3 * rng.normal(size=len(t)) * (1 + np.sin(2 * np.pi * 3 * t))


def test_bands_for_spectrogram_transformers_are_nearly_their_own():
    """Measured: correlation 0.996 and more, and 0.3 of 3.0 in natural logarithms off."""
    extractor = transformers.ASTFeatureExtractor(num_mel_bins=64, max_length=198)
    described = {"num_mel_bins": 64, "sampling_rate": 16_000, "max_length": 198, "mean": -4.2677393, "std": 4.5689974}
    other = _front_end("audio-spectrogram-transformer", described)
    for sound in sounds(16_000):
        clip = sound.astype(np.float32)
        theirs = extractor(clip, sampling_rate=16_000, return_tensors="np")["input_values"][0]
        found = _normalized(converted(unscaled(clip, 16_000), our_front_end(16_000, 64), other), described)
        assert np.corrcoef(found.ravel(), theirs.ravel())[0, 1] > 0.995


def test_bands_for_clap_are_nearly_its_own():
    """Measured: correlation 0.960 and more (its windows are shorter), and 2.5 dB of 9 to 14 dB off."""
    extractor = transformers.ClapFeatureExtractor(truncation="rand_trunc", padding="pad", max_length_s=2)
    other = _front_end("clap", extractor.to_dict())
    for sound in sounds(48_000):
        clip = sound.astype(np.float32)
        theirs = extractor(clip, sampling_rate=48_000, return_tensors="np")["input_features"][0, 0]
        found = _decibels(converted(unscaled(clip, 48_000), our_front_end(48_000, 64), other), extractor.to_dict())
        assert found.shape == theirs.shape
        assert np.corrcoef(found.ravel(), theirs.ravel())[0, 1] > 0.955


def unscaled(clip, rate):
    config = FeaturesConfig(sample_rate=rate, num_mels=64)
    return 4 * log_mel(clip, config) - 4


@pytest.fixture
def workspace(store, settings, push_samples):
    push_samples(store, "shapes", "d1", num_samples=4)
    return Workspace(replace(settings, num_shards=1), store)


def opened(workspace, release, name, **request):
    given = {"drops": (("shapes", "d1"),), "configuration": "smoke", "encoder": name, **request}
    return open_named_release(workspace, ReleaseRequest(release=release, **given))


def add(workspace, name, folder):
    return name_encoder(workspace.store, name, store_encoder(workspace.store, read_folder(folder))[0], by="ada").digest


def shards(workspace, release):
    """Whether each asset of the only shard was computed."""
    computed = {}
    for asset in ("snapshot", "features", "embeddings"):
        partition = Partition(release=release, shard="0000")
        computed[asset] = not workspace.run(asset, partition, environment={}).cached
        assert workspace.check(asset, partition).passed
    return computed


def test_other_weights_compute_embeddings_again_and_nothing_else(workspace, models):
    digest = add(workspace, "tiny", models["clip"])
    add(workspace, "tiny-2", models["other"])
    assert opened(workspace, "r1", "tiny").encoder == {"kind": PRETRAINED, "digest": digest, "name": "tiny"}
    assert all(shards(workspace, "r1").values())
    opened(workspace, "r2", "tiny-2")
    assert shards(workspace, "r2") == {"snapshot": False, "features": False, "embeddings": True}
    add(workspace, "same-as-tiny", models["clip"])
    opened(workspace, "r3", "same-as-tiny")
    assert not any(shards(workspace, "r3").values())
    assert verify_store(workspace.store).is_sound


def test_a_flipped_byte_of_the_weights_is_refused_and_verify_names_it(models, store, tmp_path):
    digest, encoder = store_encoder(store, read_folder(models["clip"]))
    name_encoder(store, "tiny", digest, by="ada")
    weights = next(file for file in encoder.files if file.name == "model.safetensors")
    data = bytearray(store.get_bytes(weights.digest))
    data[-1] ^= 1
    key = f"{store.prefix}/{object_key(weights.digest)}"
    store.client.put_object(Bucket=store.bucket, Key=key, Body=bytes(data))
    assert object_key(weights.digest) in verify_store(store).corrupt
    given = [NamedDigest(name=file.name, digest=file.digest) for file in encoder.files]
    entry = Input(asset="encoder", partition={"kind": PRETRAINED}, manifest=digest, outputs=given)
    with pytest.raises(ObjectCorruptError, match=weights.digest):
        load_pretrained(
            Job(store=store, action=action_of("embeddings", [entry]), workdir=models["clip"].parent), dim=64
        )


def test_a_name_never_changes_what_it_stands_for(workspace, models):
    digest = add(workspace, "tiny", models["clip"])
    assert add(workspace, "tiny", models["clip"]) == digest
    with pytest.raises(CommitConflictError, match=f"encoder tiny: is another one in this store: expected {digest}"):
        add(workspace, "tiny", models["other"])
    with pytest.raises(UsageError, match="expected one of bootstrap, production, tiny"):
        find_encoder(workspace.store, "tniy")
    for name in ("production", "Ti ny"):
        with pytest.raises(UsageError, match=f"encoder {name}: is not a valid name"):
            name_encoder(workspace.store, name, digest, by="ada")


def test_a_configuration_that_does_not_fit_is_refused_when_a_release_is_opened(workspace, models):
    add(workspace, "tiny", models["clip"])
    add(workspace, "sound", models["clap"])
    with pytest.raises(SpecError, match=r"encoder tiny: .* expected encoder\.dim 64, got 512"):
        opened(workspace, "r1", "tiny", configuration="multimodal_cpu_512")
    with pytest.raises(SpecError, match=r"encoder sound: .* expected features\.num_mels 32, got 40"):
        opened(workspace, "r1", "sound")


def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.PT", "weights.pkl"])
def test_a_pickle_is_refused_by_name(name, models, tmp_path):
    folder = copied(models["clip"], tmp_path)
    (folder / name).write_bytes(b"anything")
    with pytest.raises(UsageError, match=f"{name} is a pickle"):
        read_folder(folder)


def test_folders_that_hold_no_encoder_are_refused_with_what_is_missing(models, store, tmp_path):
    folder = copied(models["clip"], tmp_path)
    (folder / "tokenizer.json").rename(folder / "kept.json")
    with pytest.raises(UsageError, match=r"tokenizer\.json is missing"):
        store_encoder(store, read_folder(folder))
    (folder / "kept.json").rename(folder / "tokenizer.json")
    preprocessor = json.loads((folder / "preprocessor_config.json").read_text())
    del preprocessor["image_std"]
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    with pytest.raises(UsageError, match=r"preprocessor_config\.json has no image_std"):
        store_encoder(store, read_folder(folder))
    change(folder / "config.json", model_type="llama")
    supported = r"clap \(text and audio\), clip \(text and image\)"
    with pytest.raises(
        UsageError, match=rf"'llama' .* expected one of audio-spectrogram-transformer \(audio\), {supported}"
    ):
        store_encoder(store, read_folder(folder))
    (folder / "model.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(UsageError, match=r"model\.safetensors cannot be read"):
        read_folder(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"model\.safetensors is missing"):
        read_folder(folder)
    with pytest.raises(UsageError, match="is not a folder"):
        read_folder(folder / "config.json")


def test_a_clap_model_that_fuses_random_crops_is_refused(models, store, tmp_path):
    folder = copied(models["clap"], tmp_path)
    change(folder / "preprocessor_config.json", truncation="fusion")
    with pytest.raises(UsageError, match="fuses random crops"):
        store_encoder(store, read_folder(folder))


@pytest.mark.parametrize(
    ("kind", "file", "fields", "said"),
    [
        ("clip", "config.json", {"quantization_config": {"bits": 4}}, "has a quantization_config"),
        ("clip", "config.json", {"text_config": {"quantization_config": {}}}, "has a quantization_config"),
        (
            "clip",
            "preprocessor_config.json",
            {"image_mean": [0.5, 0.5]},
            "image_mean .* three finite numbers,",
        ),
        ("clip", "preprocessor_config.json", {"image_std": [1, 0, 1]}, "three finite numbers other than 0, got"),
        ("ast", "preprocessor_config.json", {"std": 0.0}, "std .* expected a finite number other than 0, got 0.0"),
        ("ast", "preprocessor_config.json", {"mean": float("nan")}, "mean .* expected a finite number, got nan"),
        ("ast", "preprocessor_config.json", {"max_length": "100"}, "max_length .* a whole number above 0, got 100"),
        ("clap", "preprocessor_config.json", {"max_length_s": 2.5}, "max_length_s .* a whole number above 0, got 2.5"),
        (
            "clap",
            "preprocessor_config.json",
            {"hop_length": 170},
            "hop_length 170 .* a multiple of 16\\. Take",
        ),
        ("clip", "tokenizer.json", {"model": {"type": "none"}}, r"tokenizer\.json is no tokenizer"),
    ],
)
def test_what_a_stage_could_not_run_is_refused_when_it_is_added(kind, file, fields, said, models, store, tmp_path):
    folder = copied(models[kind], tmp_path)
    change(folder / file, **fields)
    with pytest.raises(UsageError, match=said):
        store_encoder(store, read_folder(folder))


@pytest.mark.parametrize(("kind", "said"), [("int8", "are of type I8: expected one of F64"), ("nan", "hold NaN")])
def test_weights_that_are_packed_or_not_finite_are_refused_when_they_are_added(kind, said, models, store, tmp_path):
    folder = copied(models["clip"], tmp_path)
    weights = load_file(folder / "model.safetensors")
    name = "visual_projection.weight"
    weights[name] = weights[name].to(torch.int8) if kind == "int8" else weights[name].to(torch.bfloat16)
    if kind == "nan":
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        store_encoder(store, read_folder(folder))
        weights[name][1, 1] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=f"weights {name} {said}"):
        store_encoder(store, read_folder(folder))


@pytest.mark.parametrize(
    "fields",
    [
        {"files": [{"name": "../x", "digest": "sha256:" + "0" * 64, "size_bytes": 1}]},
        {"modalities": ["../x"]},
        {"expects": {"__class__": 1}},
    ],
)
def test_names_in_the_document_of_an_encoder_are_known_ones(fields, models, store):
    document = json.loads(store_encoder(store, read_folder(models["clip"]))[1].encode())
    parse_encoder(json.dumps(document).encode(), "x")
    with pytest.raises(ObjectCorruptError, match="encoder x: is not the document of an encoder"):
        parse_encoder(json.dumps({**document, **fields}).encode(), "x")


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ""])
def test_an_object_is_fetched_into_its_folder_alone(name, store, tmp_path):
    digest = store.put_bytes(b"x")
    with pytest.raises(ObjectCorruptError, match="is not the name of a file"):
        store.fetch(digest, tmp_path / "folder", name)


def test_weights_that_are_missing_are_named_and_never_drawn(models, embed, samples, tmp_path):
    folder = copied(models["clip"], tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(StageError, match=r"1 of its weights are missing: expected visual_projection\.weight"):
        embed(folder, samples)


def test_the_library_is_loaded_for_such_encoders_alone_and_its_version_is_pinned():
    assert LIBRARIES == {name: metadata.version(name) for name in LIBRARIES}
    required = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f'"{name}=={version}"' in required for name, version in LIBRARIES.items())
    assert set(CLASSES) == set(MODEL_TYPES)
    loads = "import sys, mm_assets.features.embed, mm_assets.pipeline; print([m for m in sys.modules if m in sys.argv])"
    found = subprocess.run(
        [sys.executable, "-c", loads, *LIBRARIES], check=True, capture_output=True, text=True, timeout=60
    )
    assert found.stdout.strip() == "[]"


def test_encoders_are_added_and_listed_by_commands(moto_settings, models, tmp_path, capsys):
    folder = copied(models["clip"], tmp_path)
    (folder / "README.md").write_text("what it is")
    assert main(["encoder", "add", str(folder), "--name", "tiny", "--json"]) == 0
    added = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (added["name"], added["modalities"], added["unused"]) == ("tiny", ["text", "image"], ["README.md"])
    assert main(["encoder", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out.splitlines()[-1])["encoders"]
    assert [entry["name"] for entry in listed] == ["bootstrap", "production", "tiny"]
    assert listed[-1]["digest"] == added["digest"]
    assert main(["encoder", "add", str(folder), "--name", "bootstrap"]) == 2
    assert "is not a valid name" in capsys.readouterr().err
