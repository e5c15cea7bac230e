"""Samples with several parts from the drop to the batches of a plan, beside plain samples in one shard."""

import io
import json
import tempfile
import uuid
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mm_assets.batching.collate import Layout, collate, pack_samples
from mm_assets.batching.rows import part_tokens
from mm_assets.batching.samples import Sample, TensorFile
from mm_assets.configurations import ReleaseRequest, configuration_named, open_named_release
from mm_assets.evaluation.config import CorruptionConfig
from mm_assets.evaluation.corruptions import damage
from mm_assets.features.embed import mean_vector
from mm_assets.identity.canonical import digest_bytes
from mm_assets.lineage.letters import find_letter
from mm_assets.materialize import Workspace
from mm_assets.modalities.kinds import KIND_OF
from mm_assets.modalities.table import NAMES
from mm_assets.pipeline import ASSETS
from mm_assets.settings import read_settings
from mm_assets.store.client import make_client
from mm_assets.store.manifest import Manifest, Partition, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.refs import require_ref
from mm_assets.store.tables import map_arrow, read_parquet
from mm_assets.training.network import Network, fused_mask
from mm_assets.training.tokens import to_inputs
from mm_assets_tests.conftest import MOTO_KEYS, melody
from mm_assets_tests.drops.raw_data import deliver, jsonl, make_folder

pytestmark = pytest.mark.integration
SIZE = 64


def picture(seed: int, *, quality: int | None = None) -> bytes:
    """Noise that no other seed has; with ``quality`` nearly the same as JPEG."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).resize((96, 96), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "PNG") if quality is None else image.save(file, "JPEG", quality=quality)
    return file.getvalue()


ROWS: list[dict[str, Any]] = [
    {
        "id": "interleaved",
        "content": [{"text": "first words"}, {"image": "0.png"}, {"text": "then"}, {"image": "1.png"}],
    },
    {"id": "several", "text": "three pictures of it", "image": ["2.png", "3.png", "4.png"], "audio": "a.wav"},
    {"id": "near", "text": "three pictures of it", "image": ["2.jpg", "3.jpg", "4.jpg"], "audio": "a.wav"},
    {"id": "equal", "text": "three pictures of it", "image": ["2.png", "3.png", "4.png"], "audio": "a.wav"},
    {"id": "turned", "text": "three pictures of it", "image": ["4.png", "3.png", "2.png"], "audio": "a.wav"},
    {"id": "shares", "text": "shows a part of it", "image": "3.png"},
    {"id": "plain", "text": "nothing but this", "image": "10.png"},
    {"id": "long", "text": ["words"] * 3, "image": [f"{n % 6}.png" for n in range(12)]},
    *({"id": f"other{n}", "text": f"other words {n}", "image": f"{n}.png"} for n in range(11, 23)),
]


@dataclass
class Made:
    """The assets of one release, and where they are."""

    store: Store
    folder: Path
    workspace: Workspace
    manifests: dict[str, Manifest]

    def table(self, asset: str, name: str = "samples.parquet") -> dict[str, dict[str, Any]]:
        path = self.store.fetch(self.manifests[asset].output(name).digest, self.folder)
        return {row["id"].rpartition("/")[2]: row for row in read_parquet(path).to_pylist()}

    def samples(self) -> dict[str, Sample]:
        path = self.store.fetch(self.manifests["features"].output("tensors.arrow").digest, self.folder)
        file = TensorFile(path)
        return {(sample := file.read(row)).id.rpartition("/")[2]: sample for row in range(map_arrow(path).num_rows)}


@pytest.fixture(scope="module")
def made(moto_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A release of ``ROWS``, materialized up to its plan."""
    client = make_client(moto_endpoint, MOTO_KEYS)
    store = Store(client=client, bucket=f"b-{uuid.uuid4().hex}", prefix="store")
    client.create_bucket(Bucket=store.bucket)
    folder = tmp_path_factory.mktemp("parts")
    files = {f"{n}.png": picture(n) for n in range(23)} | {f"{n}.jpg": picture(n, quality=80) for n in range(2, 5)}
    files |= {"a.wav": melody(7), "index.jsonl": jsonl(*ROWS)}
    deliver(store, make_folder(folder / "d", files))
    workspace = Workspace(read_settings({"MM_HOME": str(folder / "home")}), store)
    request = ReleaseRequest(release="r1", drops=(("src", "d1"),), configuration="smoke", num_shards=1)
    open_named_release(workspace, request)
    manifests: dict[str, Manifest] = {}
    for asset in ("snapshot", "features", "embeddings", "dataset_release", "batch_plan"):
        partition = Partition(release="r1", shard="0000" if ASSETS[asset].is_sharded else None)
        manifests[asset] = workspace.run(asset, partition, environment={}).manifest
        record = workspace.check(asset, partition)
        assert record.passed, record.failures
    return Made(store, folder / "o", workspace, manifests)


# Features.


def test_a_sample_has_one_row_however_many_parts_it_has(made: Made) -> None:
    signals, samples = made.table("features", "signals.parquet"), made.samples()
    assert len(signals) == len(samples) == len(ROWS)
    assert [(part["modality"], part["length"]) for part in signals["interleaved"]["parts"]] == [
        ("text", 13), ("image", 1), ("text", 6), ("image", 1),
    ]  # fmt: skip
    assert signals["interleaved"]["text_tokens"] == 19
    assert signals["interleaved"]["text_chars"] == len("first words") + len("then")
    assert signals["plain"]["parts"] is samples["plain"].parts is None
    assert samples["several"].tensors["image"].shape == (3 * SIZE, SIZE, 3)
    assert samples["plain"].tensors["image"].shape == (SIZE, SIZE, 3)
    assert made.manifests["features"].stats["parts"] == {"text": 23, "image": 40, "audio": 4, "video": 0}


def test_the_tensors_of_parts_are_those_of_the_same_blobs_alone(made: Made) -> None:
    samples = made.samples()
    shared, parts = samples["shares"].tensors["image"], np.split(samples["several"].tensors["image"], 3)
    assert np.array_equal(parts[1], shared)
    assert not np.array_equal(parts[0], shared)
    assert np.array_equal(np.split(samples["turned"].tensors["image"], 3)[0], parts[2])


def test_a_modality_has_the_worst_signal_of_its_parts_and_one_digest_for_all(made: Made) -> None:
    signals = made.table("features", "signals.parquet")
    assert signals["several"]["sharpness"] <= signals["shares"]["sharpness"]
    digests = {name: signals[name]["image_pixels_digest"] for name in ("several", "equal", "turned", "shares")}
    assert digests["several"] == digests["equal"]
    assert len(set(digests.values())) == 3
    assert signals["shares"]["image_pixels_digest"] in {part["digest"] for part in signals["several"]["parts"]}


def test_the_embedding_of_several_pictures_is_the_mean_of_theirs(made: Made) -> None:
    vectors = made.table("embeddings", "embeddings.parquet")
    several, turned = (np.array(vectors[name]["image"]) for name in ("several", "turned"))
    assert np.allclose(several, turned, atol=1e-6)
    assert several @ np.array(vectors["shares"]["image"]) > several @ np.array(vectors["plain"]["image"])


def test_vectors_that_cancel_each_other_leave_the_first() -> None:
    one = torch.tensor([1.0, 0.0])
    assert torch.equal(mean_vector(torch.stack([one, -one])), one)
    assert torch.allclose(mean_vector(torch.eye(2)), torch.full((2,), 0.5**0.5))


def test_a_part_that_does_not_decode_is_named_in_its_dead_letter(store: Store, tmp_path: Path) -> None:
    rows = [{"id": "broken", "image": ["0.png", "cut.png"]}, {"id": "good", "text": "good"}]
    files = {"0.png": picture(0), "cut.png": picture(7)[:-40], "index.jsonl": jsonl(*rows)}
    deliver(store, make_folder(tmp_path / "d", files))
    workspace = Workspace(read_settings({"MM_HOME": str(tmp_path / "home")}), store)
    request = ReleaseRequest(release="r1", drops=(("src", "d1"),), configuration="smoke", num_shards=1)
    open_named_release(workspace, request)
    partition = Partition(release="r1", shard="0000")
    workspace.run("snapshot", partition, environment={})
    workspace.check("snapshot", partition)
    workspace.run("features", partition, environment={})
    (letter,) = find_letter(store, "r1", "broken")
    assert str(letter["detail"]).startswith("image 2 of 2: ")
    assert letter["digest"] == digest_bytes(files["cut.png"])
    (row,) = (row for row in _rows(store, partition) if row["key"] == "broken")
    place = letter["place"]
    assert isinstance(place, dict)
    assert place["offset"] == row["image_parts"][1]["offset"] != row["image_offset"]


def _rows(store: Store, partition: Partition) -> list[dict[str, Any]]:
    manifest = read_manifest(store, require_ref(store, "snapshot", partition).manifest)
    with tempfile.TemporaryDirectory() as folder:
        return read_parquet(store.fetch(manifest.output("samples.parquet").digest, Path(folder))).to_pylist()


# The frozen release.


def test_copies_part_by_part_are_duplicates_and_what_shares_a_part_stays_in_one_split(made: Made) -> None:
    rows = made.table("dataset_release")
    kept = {row["duplicate_of"].rpartition("/")[2]: name for name, row in rows.items() if row["duplicate_of"]}
    reasons = {name: row["reasons"] for name, row in rows.items() if row["reasons"]}
    assert set(reasons.values()) == {"duplicate", "near_duplicate"}
    assert sorted(reasons) in (["equal", "several"], ["near", "several"], ["equal", "near"])
    assert len(kept) == 1
    family = ("several", "near", "equal", "turned", "shares", "long", "interleaved")
    assert len({rows[name]["split"] for name in family}) == 1
    assert [part["modality"] for part in rows["interleaved"]["parts"]] == ["text", "image", "text", "image"]
    assert rows["plain"]["parts"] is None


def test_coverage_counts_samples_and_statistics_count_parts_as_well(made: Made) -> None:
    statistics = json.loads(made.store.get_bytes(made.manifests["dataset_release"].output("stats.json").digest))
    assert statistics["modalities"] == {"text+image": 16, "text+image+audio": 2}
    assert statistics["parts"] == {"num_samples": 4, "text": 23 - 2, "image": 40 - 6, "audio": 2, "video": 0}
    assert made.manifests["snapshot"].stats["modalities"]["image"] == len(ROWS)


# The plan and the model.


def layout_for(pack_tokens: int = 512, places: int = 4) -> Layout:
    shape = {"image_size": SIZE, "image_patch": 8, "num_mels": 40, "audio_stack": 8, "vocab_size": 260}
    return Layout(pack_tokens=pack_tokens, shape=shape, places=places)


def test_tokens_of_a_sample_are_in_reading_order_and_know_their_place(made: Made) -> None:
    batch = collate(pack_samples([made.samples()["interleaved"]], layout_for()), layout_for())
    runs = [
        (int(kind), int(place), int(count))
        for (kind, place), count in _runs(batch.kinds_PT[0].tolist(), batch.places_PT[0].tolist())
    ]
    text, image = KIND_OF["text"], KIND_OF["image"]
    assert runs[1:5] == [(text, 1, 13), (image, 2, 64), (text, 3, 6), (image, 4, 64)]
    assert batch.positions_PT[0][batch.kinds_PT[0] == text].tolist() == list(range(19))
    assert batch.values["image"].shape == (2, SIZE, SIZE, 3)


def _runs(*columns: list[int]) -> list[tuple[tuple[int, ...], int]]:
    return [(key, len(list(group))) for key, group in groupby(zip(*columns, strict=True))]


def test_a_token_sees_its_own_part_and_earlier_ones_only(made: Made) -> None:
    batch = collate(pack_samples([made.samples()["interleaved"]], layout_for()), layout_for())
    inputs = to_inputs(batch)
    (block,) = inputs.blocks
    seen = fused_mask(inputs, block)[0]
    places, kinds = inputs.places_N, inputs.kinds_N
    first_text, last_text = (places == 1).nonzero()[0, 0], (places == 3).nonzero()[0, 0]
    images = [(places == place).nonzero()[:, 0] for place in (2, 4)]
    assert not seen[first_text, images[0]].any()
    assert seen[last_text, images[0]].all()
    assert not seen[last_text, images[1]].any()
    cls = int((kinds == 1).nonzero()[0, 0]) if (kinds == 1).any() else 0
    assert seen[cls, torch.cat(images)].all()


def test_the_order_of_parts_changes_what_the_model_says(made: Made) -> None:
    samples, layout = made.samples(), layout_for(places=5)
    torch.manual_seed(0)
    network = Network(configuration_named("smoke").training.model, layout, ["a", "b"]).eval()
    with torch.no_grad():
        logits = network(to_inputs(collate(pack_samples([samples["several"], samples["turned"]], layout), layout)))
    assert not torch.allclose(logits.logits_SK[0], logits.logits_SK[1])


def test_a_plan_counts_the_tokens_of_all_parts_and_cuts_what_no_pack_holds(made: Made) -> None:
    plan = made.table("batch_plan", "plan.parquet")
    samples, layout = made.samples(), layout_for()
    for name, row in plan.items():
        planned = tuple(row[f"{modality}_tokens"] for modality in NAMES)
        assert planned == layout.tokens(samples[name])
    parts = samples["long"].parts
    assert parts is not None
    kept = part_tokens(parts, layout.shape, 512)
    assert len(kept) < len(parts)
    assert sum(count for _, count in kept) < 512
    assert made.manifests["batch_plan"].stats["samples_cut"] == int(
        made.table("dataset_release")["long"]["split"] == "train"
    )


@pytest.mark.parametrize("name", ["image_jpeg", "image_blur", "audio_clipping", "text_ocr", "drop_image"])
def test_damage_is_done_to_each_part(name: str, made: Made) -> None:
    sample = made.samples()["several" if name.startswith("audio") else "interleaved"]
    damaged = damage(sample, CorruptionConfig(name=name, severities=(1,)), 1 if name == "drop_image" else 5, 1)
    assert damaged.parts is not None
    assert sample.parts is not None
    layout = layout_for()
    collate(pack_samples([damaged], layout), layout)
    if name == "drop_image":
        assert [modality for modality, _ in damaged.parts] == ["text", "text"]
    else:
        assert [modality for modality, _ in damaged.parts] == [modality for modality, _ in sample.parts]
        changed = name.partition("_")[0]
        assert not np.array_equal(damaged.tensors[changed], sample.tensors[changed])
