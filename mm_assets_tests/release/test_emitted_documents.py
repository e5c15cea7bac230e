"""What is written for others, read with the tools of those others."""

import json

import mlcroissant
import pytest
import yaml
from huggingface_hub import DatasetCard

from mm_assets.identity.canonical import digest_bytes
from mm_assets.lineage.openlineage import openlineage_events
from mm_assets.release.drift import stability_index, total_variation
from mm_assets.release.shards import Shard, merkle_root
from mm_assets.releases.spec import write_spec
from mm_assets_tests.release.conftest import PARAMS


@pytest.fixture
def files(world, sample, tmp_path):
    committed = world.release([sample(f"k{i:02d}", language=("en", "de", "zh-hant")[i % 3]) for i in range(20)])
    for output in committed.manifest.outputs:
        world.store.fetch(output.digest, tmp_path, output.name)
    return tmp_path


def test_croissant_is_valid_and_its_records_can_be_read(files):
    dataset = mlcroissant.Dataset(jsonld=files / "croissant.json")
    assert not dataset.metadata.ctx.issues.errors
    records = list(dataset.records("samples"))
    assert len(records) == 20
    assert records[0]["samples/id"] == b"zoo/d1/k00"
    assert {record["samples/split"] for record in records} == {b"train", b"val", b"test"}


def test_parts_are_in_croissant_and_card(world, sample, tmp_path):
    parts = [{"modality": "image", "digest": digest_bytes(b"%d" % number), "length": 1} for number in range(3)]
    rows = [sample(f"k{number:02d}") for number in range(19)]
    committed = world.release([*rows, sample("several", text=None, audio=None, parts=parts)])
    for output in committed.manifest.outputs:
        world.store.fetch(output.digest, tmp_path, output.name)
    dataset = mlcroissant.Dataset(jsonld=tmp_path / "croissant.json")
    assert not dataset.metadata.ctx.issues.errors
    [fields] = [record_set.fields for record_set in dataset.metadata.record_sets]
    [described] = [field for field in fields if field.name == "parts"]
    assert [field.name for field in described.sub_fields] == ["parts/modality", "parts/length"]
    record = {record["samples/id"]: record for record in dataset.records("samples")}[b"zoo/d1/several"]
    assert len(record["samples/parts"]["samples/parts/modality"]) == 3
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "1 selected samples have several parts of one modality" in card
    assert "| image | 22 |" in card


def test_card_is_a_hugging_face_dataset_card(files):
    text = (files / "README.md").read_text(encoding="utf-8")
    card = DatasetCard(text)
    assert card.data.pretty_name == "Dataset of zoo/d1"
    assert card.data.language == ["de", "en"]
    assert card.data.size_categories == ["n<1K"]
    assert card.data.to_dict()["license_name"] == "CC-BY-4.0"
    assert "| zh-hant | 6 |" in card.text
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "other"


def test_documents_are_json_with_their_schemas(files):
    assert json.loads((files / "record.json").read_bytes())["schema"] == "mm.release_record/3"
    assert json.loads((files / "stats.json").read_bytes())["schema"] == "mm.release_stats/1"


def test_redactions_and_what_was_seen_are_in_the_record_and_the_card(world, sample, tmp_path, monkeypatch):
    monkeypatch.setitem(PARAMS, "params.redactions", "email@1,phone@1")
    rows = [sample("a", has_email=True, num_redacted=2), sample("b", has_phone=True, num_redacted=1), sample("c")]
    committed = world.release(rows)
    record = json.loads(world.store.get_bytes(committed.manifest.output("record.json").digest))
    assert record["redaction"] == {
        "applied": ["email@1", "phone@1"],
        "num_redacted": 3,
        "flagged": {"email": 1, "iban": 0, "ip_address": 0, "payment_card": 0, "phone": 1, "url": 0},
    }
    card = world.store.get_bytes(committed.manifest.output("README.md").digest).decode()
    assert "Redacted before training: `email@1`, `phone@1`, in 3 places." in card
    assert "| email | 1 |" in card


FILES = ("samples", "signals", "embedding_signals", "tensors")


def shard(name, *, generation=0, **digests):
    return Shard(generation=generation, **{file: f"{file} {name}" for file in FILES} | digests)


def test_merkle_root_depends_on_every_file_the_lineage_and_the_order():
    shards = [shard(f"{i:04d}") for i in range(5)]
    root = merkle_root(shards)
    assert merkle_root([shard(f"{i:04d}") for i in range(5)]) == root
    changed = {merkle_root([*shards[:4], shard("0004", **{file: "x"})]) for file in FILES}
    changed |= {merkle_root([*shards[:4], shard("0004", generation=1)]), merkle_root(shards[::-1])}
    assert len(changed | {root, merkle_root(shards[:4]), merkle_root([])}) == 9


def test_drift_indices_of_known_distributions():
    assert total_variation([50, 50], [100, 0]) == 0.5
    assert stability_index([10, 10], [10, 10]) == 0.0
    # (0.45 - 0.5) * ln(0.9) + (0.55 - 0.5) * ln(1.1), half a sample added to each bin
    assert stability_index([500, 500], [450, 550]) == pytest.approx(0.01001, abs=1e-4)
    assert total_variation([], []) == stability_index([0], [3]) == 0.0


def test_openlineage_events_are_accepted_by_its_client(world, sample, tmp_path):
    client = pytest.importorskip("openlineage.client", reason="openlineage-python is not installed")
    from openlineage.client import event_v2
    from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet
    from openlineage.client.generated.output_statistics_output_dataset import OutputStatisticsOutputDatasetFacet
    from openlineage.client.transport.file import FileConfig, FileTransport

    write_spec(world.store, world.spec("r1", 2))
    committed = world.release([sample(f"k{i}") for i in range(6)])
    events = list(openlineage_events(world.store, "r1"))
    assert [event["job"]["name"] for event in events] == ["snapshot"] * 2 + ["features"] * 2 + ["embeddings"] * 2 + [
        "dataset_release"
    ]
    frozen = events[-1]
    assert frozen["outputs"][0]["facets"]["version"]["datasetVersion"] == committed.manifest.content
    assert len(frozen["inputs"]) == 2 * 3 + 2
    sink = client.OpenLineageClient(
        transport=FileTransport(FileConfig(log_file_path=str(tmp_path / "events"), append=True))
    )
    for event in events:
        outputs = [
            event_v2.OutputDataset(
                namespace=entry["namespace"],
                name=entry["name"],
                facets={"version": typed(DatasetVersionDatasetFacet, entry["facets"]["version"])},
                outputFacets={
                    "outputStatistics": typed(
                        OutputStatisticsOutputDatasetFacet, entry["outputFacets"]["outputStatistics"]
                    )
                },
            )
            for entry in event["outputs"]
        ]
        inputs = [
            event_v2.InputDataset(
                namespace=entry["namespace"],
                name=entry["name"],
                facets={"version": typed(DatasetVersionDatasetFacet, entry["facets"]["version"])},
            )
            for entry in event["inputs"]
        ]
        sink.emit(
            event_v2.RunEvent(
                eventType=event_v2.RunState[event["eventType"]],
                eventTime=event["eventTime"],
                run=event_v2.Run(runId=event["run"]["runId"]),
                job=event_v2.Job(namespace=event["job"]["namespace"], name=event["job"]["name"]),
                inputs=inputs,
                outputs=outputs,
                producer=event["producer"],
            )
        )
    written = [json.loads(line) for line in (tmp_path / "events").read_text("utf-8").splitlines()]
    for one, other in zip(written, events, strict=True):
        one["run"].pop("facets")  # The client adds tags about itself.
        assert without_empty(one) == without_empty(other)


def typed(kind, facet):
    """The client's own class of a facet; it refuses fields that the facet does not have."""
    made = kind(
        **{name: value for name, value in facet.items() if not name.startswith("_")}, producer=facet["_producer"]
    )
    assert made._schemaURL == facet["_schemaURL"]
    return made


def without_empty(value):
    if isinstance(value, dict):
        return {name: without_empty(item) for name, item in value.items() if item not in ({}, [], None)}
    return [without_empty(item) for item in value] if isinstance(value, list) else value
