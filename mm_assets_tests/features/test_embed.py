import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mm_assets.errors import ObjectCorruptError, StageError
from mm_assets.features.bootstrap import bootstrap_encoder_bytes
from mm_assets.features.config import EncoderConfig, FeaturesConfig
from mm_assets.features.embed import embed_table
from mm_assets.features.encoder import load_encoder
from mm_assets.features.neighbours import coherence
from mm_assets.features.validate import validate_embeddings, validate_features
from mm_assets.identity.canonical import digest_bytes
from mm_assets.store.manifest import Partition
from mm_assets.store.tables import map_arrow, read_parquet

CONFIG = EncoderConfig()
#: Releases pin this digest; another one means that every embedding changes.
GOLDEN_ENCODER = "sha256:368a405b3c43def24e8d33b649299c20abaddd80d294f96884a21e0a4258def6"
PARTITION = Partition(release="r1", shard="0000")


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(bootstrap_encoder_bytes(CONFIG), dim=CONFIG.dim, digest=GOLDEN_ENCODER)


@pytest.fixture
def samples(make_tone, make_blocks, to_wav, to_picture):
    """24 samples; 7, 8 and 9 lack a modality, 11 is 10 with its picture saved again."""
    built = {}
    for number in range(24):
        built[f"s/d/{number:02d}"] = {
            "txt": f"house number {number} of street {number % 5}".encode(),
            "png": to_picture(make_blocks(number)),
            "wav": to_wav(make_tone(200 + 150 * number, 0.2 + number / 50, 16_000), 16_000),
        }
    del built["s/d/07"]["txt"], built["s/d/08"]["png"], built["s/d/09"]["wav"], built["s/d/09"]["png"]
    built["s/d/11"] = built["s/d/10"] | {"webp": to_picture(make_blocks(10), "WEBP", lossless=True)}
    del built["s/d/11"]["png"]
    return built


def _table(store, committed, name, tmp_path):
    return read_parquet(store.fetch(committed.manifest.output(name).digest, tmp_path))


def _outputs(committed):
    return {output.name: output.digest for output in committed.manifest.outputs}


def test_encoder_bytes_are_a_safetensors_file_with_a_golden_digest():
    data = bootstrap_encoder_bytes(CONFIG)
    assert digest_bytes(data) == GOLDEN_ENCODER
    tensors = safetensors.numpy.load(data)
    assert safetensors.numpy.save(tensors) == data
    assert set(np.unique(tensors["text.projection"])) == {-1, 1}


def test_encoder_of_another_size_is_refused():
    with pytest.raises(StageError, match="not a bootstrap encoder of 32 dimensions"):
        load_encoder(bootstrap_encoder_bytes(CONFIG), dim=32, digest=GOLDEN_ENCODER)


def test_embeddings_pass_their_check(embed, store, rules, samples, tmp_path):
    features, embeddings = embed(samples)
    assert [finding for finding in validate_features(store, features.manifest, rules) if not finding.passed] == []
    assert [finding for finding in validate_embeddings(store, embeddings.manifest, rules) if not finding.passed] == []
    table = _table(store, embeddings, "embeddings.parquet", tmp_path)
    assert table.column("id").to_pylist() == sorted(samples)
    assert table.column("text").null_count == 1
    assert table.column("audio").null_count == 1
    assert table.column("image")[8].as_py() is None
    assert table.column("image")[9].as_py() is None
    assert len(table.column("image")[10].as_py()) == 64


def test_micro_batch_size_does_not_change_a_byte(embed, samples):
    outputs = [_outputs(embed(samples, microbatch_size=size)[1]) for size in (1, 5, 64)]
    assert outputs[0] == outputs[1] == outputs[2]


def test_thread_count_does_not_change_an_embedding(embed, encoder, store, samples, tmp_path):
    features, _ = embed(samples)
    tensors = map_arrow(store.fetch(features.manifest.output("tensors.arrow").digest, tmp_path))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = embed_table(encoder, tensors, microbatch_size=7)
        torch.set_num_threads(2)
        two = embed_table(encoder, tensors, microbatch_size=24)
    finally:
        torch.set_num_threads(before)
    for modality, (rows, vectors) in one.items():
        assert torch.equal(rows, two[modality][0])
        assert torch.equal(vectors, two[modality][1])


@pytest.mark.property
@hypothesis_settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), extra=st.integers(1, 30))
def test_padding_of_a_batch_does_not_change_a_clip_or_a_text(seed, extra, encoder):
    rng = np.random.default_rng(seed)
    length = int(rng.integers(1, 60))
    mel = torch.from_numpy(np.round(rng.normal(0, 1, (1, length, 40)) * 1024) / 1024).float()
    padded = torch.nn.functional.pad(mel, (0, 0, 0, extra))
    count = torch.tensor([length])
    assert torch.equal(encoder.encode("audio", mel, count), encoder.encode("audio", padded, count))
    tokens = torch.from_numpy(rng.integers(1, 260, (1, length)))
    wide = torch.nn.functional.pad(tokens, (0, extra))
    assert torch.equal(encoder.encode("text", tokens), encoder.encode("text", wide))


@pytest.mark.parametrize("size", [16, 64, 256])
def test_pictures_without_any_structure_have_unit_embeddings(size, encoder):
    flat = torch.stack([torch.full((size, size, 3), value, dtype=torch.uint8) for value in (0, 128, 255)])
    assert torch.allclose(encoder.encode("image", flat).norm(dim=1), torch.ones(3))


def test_alike_pictures_are_closer_than_others(encoder, make_blocks):
    pixels = torch.from_numpy(np.stack([np.asarray(make_blocks(seed, 64)) for seed in (1, 2, 3)]))
    noise = torch.randint(-6, 7, pixels.shape, generator=torch.Generator().manual_seed(0))
    near = (pixels.int() + noise).clamp(0, 255).to(torch.uint8)
    similarity = encoder.encode("image", pixels) @ encoder.encode("image", near).T
    assert (similarity.diagonal() > 0.95).all()
    assert similarity.argmax(dim=1).tolist() == [0, 1, 2]


def test_coherence_is_one_where_modalities_agree_and_near_chance_where_not():
    generator = torch.Generator().manual_seed(3)
    left, other = (torch.nn.functional.normalize(torch.randn(200, 64, generator=generator)) for _ in range(2))
    rows = torch.arange(200)
    ids = [f"s/d/{row}" for row in range(201)]
    nothing = (torch.zeros(0, dtype=torch.int64), torch.zeros(0, 64))
    same = coherence(ids, {"text": (rows, left), "image": (rows, left), "audio": nothing}, CONFIG)
    different = coherence(ids, {"text": (rows, left), "image": (rows, other), "audio": nothing}, CONFIG)
    assert same[:200] == [1.0] * 200
    assert same[200] is None
    assert np.mean(different[:200]) == pytest.approx(10 / 199, abs=0.03)


def test_coherence_needs_enough_neighbours():
    rows, vectors = torch.arange(20), torch.eye(20, 64)
    few = {"text": (rows, vectors), "image": (rows, vectors), "audio": (rows, vectors)}
    assert coherence([str(row) for row in range(20)], few, CONFIG) == [None] * 20


def test_coherence_does_not_depend_on_row_order():
    generator = torch.Generator().manual_seed(5)
    left, right = (torch.nn.functional.normalize(torch.randn(60, 64, generator=generator)) for _ in range(2))
    ids, nothing = [f"id{row}" for row in range(60)], (torch.zeros(0, dtype=torch.int64), torch.zeros(0, 64))
    config = EncoderConfig(reference_rows=40)
    rows, order = torch.arange(60), torch.randperm(60, generator=generator)
    straight = coherence(ids, {"text": (rows, left), "image": (rows, right), "audio": nothing}, config)
    shuffled_ids = [ids[row] for row in order.tolist()]
    shuffled = coherence(
        shuffled_ids, {"text": (rows, left[order]), "image": (rows, right[order]), "audio": nothing}, config
    )
    assert dict(zip(shuffled_ids, shuffled, strict=True)) == dict(zip(ids, straight, strict=True))


def test_empty_shard_embeds_to_nothing(embed, store, rules, tmp_path):
    _, embeddings = embed({})
    assert _table(store, embeddings, "embeddings.parquet", tmp_path).num_rows == 0
    assert all(finding.passed for finding in validate_embeddings(store, embeddings.manifest, rules))


def test_damaged_encoder_is_refused(embed, store, samples):
    _, embeddings = embed(samples)
    digest = embeddings.manifest.input("encoder").manifest
    key = f"{store.prefix}/objects/{digest[7:9]}/{digest[7:]}"
    store.client.put_object(Bucket=store.bucket, Key=key, Body=b"x" * len(bootstrap_encoder_bytes(CONFIG)))
    with pytest.raises(ObjectCorruptError, match=digest[7:]):
        store.get_bytes(digest)


def test_features_of_another_shape_are_refused(encoder, make_features, store, tmp_path):
    features = make_features({"s/d/1": {"txt": b"word"}}, config=FeaturesConfig(num_mels=32))
    tensors = map_arrow(store.fetch(features.manifest.output("tensors.arrow").digest, tmp_path))
    with pytest.raises(StageError, match="40 mel bands, got 32"):
        embed_table(encoder, tensors, microbatch_size=8)
