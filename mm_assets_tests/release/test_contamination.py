"""What a frozen evaluation set tests on never trains, and labels keep where they come from."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from mm_assets.errors import CheckError
from mm_assets.identity.canonical import digest_bytes, to_json
from mm_assets.modalities.table import aspect
from mm_assets.release.config import FreezeConfig
from mm_assets.release.labels import LABELS
from mm_assets.release.near_sets import near_positions
from mm_assets.release.signatures import Signatures
from mm_assets.releases.spec import ReleasePin
from mm_assets_tests.release.conftest import SOURCE_YAML
from mm_assets_tests.release.drawings import picture


def pin(committed):
    return ReleasePin(release=committed.manifest.partition.release, digest=committed.manifest_digest)


def held_out_keys(world, committed):
    return sorted(key for key, row in world.rows(committed).items() if row["split"] == "test" and row["selected"])


def test_a_sample_of_a_named_evaluation_set_never_trains(world, sample):
    held_out = world.release([sample(f"e{i:02d}", drop="eval") for i in range(40)], release="held-out")
    keys = held_out_keys(world, held_out)
    assert len(keys) >= 3
    whole, picture = keys[0], keys[1]
    rows = [sample(f"k{i:02d}") for i in range(60)]
    rows += [sample(f"copy{i}", text=f"text {whole}", image=f"image {whole}", audio=f"audio {whole}") for i in range(1)]
    rows += [sample("look", image=f"image {picture}"), sample("phrase", text=f"text {keys[2]}")]
    committed = world.release(rows, release="r2", evaluation_sets=[pin(held_out)])
    frozen = world.rows(committed)
    for key in ("copy0", "look"):
        assert frozen[key]["split"] == "test" or frozen[key]["reasons"] == "contamination", frozen[key]
    assert frozen["phrase"]["selected"]  # short texts are phrases that unrelated samples share
    left_out = [key for key, row in frozen.items() if row["reasons"] == "contamination"]
    assert left_out
    [described] = world.document(committed, "record.json")["contamination"]
    assert (described["name"], described["num_samples"]) == ("zoo/d1", len(left_out))
    finding = world.findings(committed.manifest)["contamination"]
    assert finding.passed
    assert "held against: held-out" in finding.detail
    assert f"{len(left_out)} samples were left out" in finding.detail
    assert world.document(committed, "stats.json")["reasons"]["contamination"] == len(left_out)


def test_the_check_finds_what_trains_on_an_evaluation_set(world, sample):
    held_out = world.release([sample(f"e{i:02d}", drop="eval") for i in range(40)], release="held-out")
    [key, *_] = held_out_keys(world, held_out)
    rows = [sample(f"k{i:02d}") for i in range(60)] + [
        sample("a", image=f"image {key}"),
        sample("b", image=f"image {key}"),
    ]
    committed = world.release(rows, release="r2")
    trains = [name for name in ("a", "b") if world.rows(committed)[name]["split"] != "test"]
    action = world.action(world.spec("r2", 2, evaluation_sets=[pin(held_out)]))
    assert trains, "the hash put both into test: choose other names"
    finding = world.findings(committed.manifest.model_copy(update={"inputs": list(action.inputs)}))["contamination"]
    assert not finding.passed
    assert finding.failing_ids == tuple(f"zoo/d1/{name}" for name in trains)


def test_keys_of_a_line_are_handed_down(world, sample):
    parent = world.release([sample(f"m{i:02d}") for i in range(40)])
    child = world.release([sample(f"c{i:02d}", drop="d2") for i in range(40)], release="r2", parent=parent)

    def keys(committed):
        path = world.store.fetch(committed.manifest.output("evaluation_keys.parquet").digest, world.folder)
        return set(pq.read_table(path)["key"].to_pylist())

    assert keys(parent) < keys(child)
    assert len(keys(parent)) == 3 * len(held_out_keys(world, parent))
    assert world.findings(child.manifest)["contamination"].passed
    assert "held against: r1" in world.findings(child.manifest)["contamination"].detail


def test_a_part_that_an_evaluation_set_tests_on_keeps_its_sample_out(world, sample):
    def with_part(key, content):
        part = {"modality": "image", "length": 1, "digest": digest_bytes(content.encode())}
        return sample(key, parts=[part, part | {"digest": digest_bytes(key.encode())}])

    held_out = world.release([sample(f"e{i:02d}", drop="eval") for i in range(30)], release="h")
    tested = held_out_keys(world, held_out)
    rows = [with_part(f"p{key}", f"image {key}") for key in tested] + [
        with_part(f"k{i:02d}", f"own {i}") for i in range(30)
    ]
    frozen = world.rows(world.release(rows, release="r2", evaluation_sets=[pin(held_out)]))
    for key, row in frozen.items():
        is_kept_out = key.startswith("p") and row["split"] != "test"
        assert row["reasons"] == ("contamination" if is_kept_out else ""), key


def test_an_experiment_with_the_sets_of_its_base_is_its_base(world, sample):
    held_out = world.release(
        [sample("e", drop="eval", image="image k00"), *(sample(f"e{i}") for i in range(30))], release="h"
    )
    base = world.release([sample(f"k{i:02d}") for i in range(40)], evaluation_sets=[pin(held_out)])
    same = world.freeze(world.spec("x", 0, data_of=base, evaluation_sets=[pin(held_out)]))
    assert same.manifest.fingerprint == base.manifest.fingerprint
    other = world.freeze(world.spec("y", 0, data_of=base))
    assert other.manifest.fingerprint != base.manifest.fingerprint


@pytest.mark.parametrize("grouped", [True, False])
def test_near_samples_are_found_whatever_the_configurations_group(world, sample, grouped):
    world.config = FreezeConfig(group_near_duplicates=False, drop_near_duplicates=False)
    held_out = world.release(
        [sample(f"e{n:02d}", audio=None, image_signature=picture(n), drop="eval") for n in range(30)], release="h"
    )
    tested = {f"n{key[1:]}" for key in held_out_keys(world, held_out)}
    world.config = FreezeConfig() if grouped else world.config
    rows = [sample(f"n{n:02d}", audio=None, image_signature=picture(n, shade=3)) for n in range(40)]
    committed = world.release(rows, release="r2", evaluation_sets=[pin(held_out)])
    frozen = world.rows(committed)
    trained = {key for key, row in frozen.items() if row["selected"] and row["split"] != "test"}
    assert tested
    assert not tested & trained
    finding = world.findings(committed.manifest)["contamination"]
    assert finding.passed, finding.detail
    assert "keys alone" not in finding.detail
    [described] = world.document(committed, "record.json")["contamination"]
    assert described["signatures"] == held_out.manifest.output("evaluation_signatures.parquet").digest


def test_a_set_that_kept_no_signatures_is_said_to_be_compared_by_keys_alone(world, sample):
    """As older code froze it where the configuration compared no near duplicates: the file is there, and empty."""
    config = to_json(FreezeConfig(group_near_duplicates=False, drop_near_duplicates=False))
    held_out = world.release([sample(f"e{n:02d}", drop="eval") for n in range(30)], release="h")
    outputs = [
        output.model_copy(update={"num_rows": 0}) if output.name == "evaluation_signatures.parquet" else output
        for output in held_out.manifest.outputs
    ]
    params = {**held_out.manifest.params, "config": config}
    older = held_out.manifest.model_copy(update={"outputs": outputs, "params": params})
    named = ReleasePin(release="h", digest=world.store.put_bytes(older.encode()))
    committed = world.release([sample(f"k{n}") for n in range(12)], release="r2", evaluation_sets=[named])
    assert "held against: h by its keys alone" in world.findings(committed.manifest)["contamination"].detail
    [described] = world.document(committed, "record.json")["contamination"]
    assert described["signatures"] is None


def test_every_description_of_a_source_keeps_its_label_schema(world, sample):
    world.config = FreezeConfig(train_fraction=1.0, val_fraction=0.0, test_fraction=0.0)
    parent = world.release([sample("a"), sample("b")])
    newer = SOURCE_YAML.replace(b"label_schema_version: '3'", b"label_schema_version: '4'")
    child = world.release([sample("c", drop="d2")], release="r2", parent=parent, source_yaml=newer, drop="d2")
    path = world.store.fetch(child.manifest.output("labels.parquet").digest, world.folder)
    rows = [(row["id"][-1], row["label_schema"]) for row in pq.read_table(path).to_pylist()]
    assert rows == [("a", "3"), ("b", "3"), ("c", "4")]
    record = world.document(child, "record.json")
    assert sorted(entry["label_schema_version"] for entry in record["label_schemas"]) == ["3", "4"]
    assert {entry["digest"] for entry in record["label_schemas"]} == {entry["digest"] for entry in record["sources"]}


def test_a_drop_that_a_line_holds_twice_labels_each_sample_once(world, sample):
    """Opening refuses it; releases of older versions may have it."""
    parent = world.release([sample("a")])
    newer = SOURCE_YAML.replace(b"label_schema_version: '3'", b"label_schema_version: '4'")
    child = world.release([sample("c")], release="r2", parent=parent, source_yaml=newer)
    path = world.store.fetch(child.manifest.output("labels.parquet").digest, world.folder)
    assert [row["id"][-1] for row in pq.read_table(path).to_pylist()] == ["a", "c"]


def test_labels_keep_where_they_come_from(world, sample):
    rows = [
        sample("a"),
        sample("b", label_confidence=0.5, label_cohort="crowd"),
        sample("c", label=None),
        sample("d", label_confidence=1.0),
    ]
    world.config = FreezeConfig(train_fraction=1.0, val_fraction=0.0, test_fraction=0.0)
    committed = world.release(rows)
    path = world.store.fetch(committed.manifest.output("labels.parquet").digest, world.folder)
    table = pq.read_table(path)
    assert table.schema.names == LABELS.names
    found = {row["id"][-1]: row for row in table.to_pylist()}
    assert sorted(found) == ["a", "b", "d"]
    assert (found["a"]["label_guideline"], found["a"]["label_cohort"], found["a"]["label_confidence"]) == (
        "g1",
        "staff",
        None,
    )
    assert (found["b"]["label_cohort"], found["b"]["label_confidence"]) == ("crowd", 0.5)
    assert found["b"]["label_schema"] == "3"
    summary = world.document(committed, "record.json")["label_provenance"]
    names = ("label_cohort", "num_labelled", "num_with_confidence", "mean_confidence")
    assert [[row[name] for name in names] for row in summary] == [["crowd", 1, 1, 0.5], ["staff", 2, 1, 1.0]]


def test_a_policy_may_judge_the_confidence_of_labels(world, sample):
    rows = [sample("a", label_confidence=0.2), sample("b", label_confidence=0.9), sample("c")]
    frozen = world.rows(world.release(rows, policy={"name": "sure", "sql": "label_confidence >= 0.5"}))
    assert [key for key, row in frozen.items() if row["selected"]] == ["b", "c"]


@pytest.mark.parametrize(
    ("old", "new", "use", "named"),
    [
        ("status: approved", "status: revoked", None, "source zoo: its approval was revoked by Ada"),
        (
            "retention: keep",
            "retention: 2026-02-10",
            None,
            r"source zoo: its retention \(2026-02-10\) was over on 2026-02-10",
        ),
        ("retention: keep", "retention: P1M", None, r"source zoo: its retention \(P1M\) was over on 2026-03-01"),
        ("approval:", "consent: withdrawn\napproval:", None, "source zoo: consent is withdrawn"),
        ("", "", "training", "source zoo: its allowed uses are research, and training is not among them"),
    ],
)
def test_a_source_that_does_not_allow_the_release_is_named_at_the_freeze(world, sample, old, new, use, named):
    source = SOURCE_YAML.replace(old.encode(), new.encode(), 1) if old else SOURCE_YAML
    with pytest.raises(CheckError, match="release r1: " + named):
        world.release([sample("a")], source_yaml=source, use=use)


@pytest.mark.parametrize(
    ("old", "new"), [("keep", "P50Y"), ("keep", "'2099-01-01'"), ("approved", "pending"), ("keep", "not declared")]
)
def test_what_is_allowed_or_undeclared_is_frozen(world, sample, old, new):
    source = SOURCE_YAML.replace(old.encode(), new.encode(), 1)
    committed = world.release([sample("a")], source_yaml=source, use="research")
    assert world.document(committed, "record.json")["use"] == "research"


def test_what_is_near_to_a_sample_of_an_evaluation_set_never_trains(world, sample):
    """Copies that share no digest: pictures a little lighter, and a text with a typo."""
    held_out = world.release(
        [sample(f"e{n:02d}", audio=None, image_signature=picture(n), drop="eval") for n in range(30)], release="h"
    )
    tested = [int(key[1:]) for key in held_out_keys(world, held_out)]
    assert tested
    rows = [sample(f"n{n:02d}", audio=None, image_signature=picture(n, shade=3)) for n in range(60)]
    committed = world.release(rows, release="r2", evaluation_sets=[pin(held_out)])
    frozen = world.rows(committed)
    contaminated = {key for key, row in frozen.items() if row["reasons"] == "contamination"}
    assert contaminated
    assert contaminated | {key for key, row in frozen.items() if row["split"] == "test" and row["selected"]} >= {
        f"n{n:02d}" for n in tested
    }
    assert contaminated <= {f"n{n:02d}" for n in tested}
    finding = world.findings(committed.manifest)["contamination"]
    assert finding.passed, finding.detail
    alone = world.release(rows, release="r3")
    action = world.action(world.spec("r3", 2, evaluation_sets=[pin(held_out)]))
    lying = alone.manifest.model_copy(update={"inputs": list(action.inputs)})
    assert set(world.findings(lying)["contamination"].failing_ids) == {f"zoo/d1/{key}" for key in contaminated}


@pytest.mark.parametrize("seed", [1, 2])
def test_near_samples_are_found_through_buckets_as_by_every_pair(seed):
    nearness = aspect("image", "nearness")
    rng = np.random.default_rng(seed)
    held = np.stack([np.frombuffer(picture(n), np.uint8) for n in range(120)])
    shades = rng.integers(0, 8, 200)
    data = np.stack([np.frombuffer(picture(n, shade=int(shades[n])), np.uint8) for n in range(200)])
    order = rng.permutation(200)
    found = Signatures(position=np.arange(200), read=data[order].__getitem__, nearness=nearness)
    every = near_positions(found, held)
    assert set(order[every].tolist()) >= set(range(120))
    assert len(every) <= 122
    assert near_positions(found, held, exact_pairs=0).tolist() == every.tolist()
    assert near_positions(found, held[::-1], exact_pairs=0).tolist() == every.tolist()
