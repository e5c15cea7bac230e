"""A whole evaluation of a real network, on sets of samples of every awkward kind."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from mm_assets.checks.validations import Finding
from mm_assets.errors import CheckError, ObjectCorruptError, SpecError, StageError
from mm_assets.evaluation.config import EvaluationConfig
from mm_assets.evaluation.evaluate import compute_evaluation
from mm_assets.evaluation.preview import preview
from mm_assets.evaluation.report import Report, read_report
from mm_assets.evaluation.rows import read_columns
from mm_assets.evaluation.validate import validate_evaluation
from mm_assets.store.commit import Committed
from mm_assets.store.job import Job
from mm_assets.store.manifest import Manifest, Partition
from mm_assets.store.objects import object_key
from mm_assets.store.refs import require_ref
from mm_assets.store.tables import table_of, write_parquet
from mm_assets_tests.by_hand import open_by_hand

Rows = list[dict[str, Any]]
RowOf = Callable[..., dict[str, Any]]
LABELS = ("cat", "dog", None, "bird")


def mixed(row: RowOf) -> Rows:
    """40 samples: 12 to train on, 12 for calibration, 16 to test; some unlabelled, some of an unknown class."""
    splits = ["train"] * 12 + ["val"] * 12 + ["test"] * 16
    return [row(index, split, label=LABELS[index % 4]) for index, split in enumerate(splits)]


def evaluated(world: Any, rows: Rows, classes: Sequence[str] = ("cat", "dog"), **values: Any) -> Committed:
    consumed = values.pop("consumed", [row["id"] for row in rows if row["split"] == "train"])
    world.release(rows)
    world.model(classes, consumed)
    return world.evaluate(**values)


def report_of(world: Any, committed: Committed) -> Report:
    return read_report(world.store, committed.manifest)


def predictions_of(world: Any, manifest: Manifest) -> pa.Table:
    return read_columns(world.store, manifest.output("predictions.parquet").digest)


def findings(world: Any, manifest: Manifest) -> dict[str, Finding]:
    rules = world.workspace.rules("r1")
    return {finding.rule: finding for finding in validate_evaluation(world.store, manifest, rules)}


def test_a_mixed_set_is_judged_completely(world: Any, row: RowOf) -> None:
    committed = evaluated(world, mixed(row))
    report = report_of(world, committed)
    assert (report.num_samples, report.num_labelled, report.overall.n) == (16, 12, 12)
    assert report.classes == ["cat", "dog"]
    assert {entry.value for entry in report.slices if entry.slice == "modalities"} == {
        "text+image+audio", "text+image", "text", "image+audio",
    }  # fmt: skip
    assert [(entry.corruption, entry.severity) for entry in report.corruptions] == [
        ("image_blur", 1), ("image_blur", 5), ("audio_noise", 3), ("text_ocr", 5), ("drop_image", 1),
    ]  # fmt: skip
    assert report.calibration.num_fitted_on == 6, "val has six samples of classes the model knows"
    assert all(finding.passed for finding in findings(world, committed.manifest).values())


def test_predictions_have_one_clean_row_per_sample(world: Any, row: RowOf) -> None:
    committed = evaluated(world, mixed(row))
    rows = predictions_of(world, committed.manifest).to_pylist()
    clean = [entry for entry in rows if entry["corruption"] == ""]
    assert [entry["id"] for entry in clean] == [f"zoo/d1/{index:04d}" for index in range(24, 40)]
    for entry in rows:
        assert entry["predicted"] in ("cat", "dog")
        assert 0.5 <= entry["confidence"] <= 1.0
        assert entry["correct"] == (None if entry["label"] is None else entry["predicted"] == entry["label"])
    dropped = [entry["combination"] for entry in rows if entry["corruption"] == "drop_image"]
    assert dropped
    assert all("image" in combination and "+" in combination for combination in dropped)


def test_damage_is_compared_with_the_same_samples(world: Any, row: RowOf) -> None:
    committed = evaluated(world, mixed(row))
    rows = predictions_of(world, committed.manifest).to_pylist()
    clean = {entry["id"]: entry["correct"] for entry in rows if entry["corruption"] == ""}
    for entry in report_of(world, committed).corruptions:
        ids = [r["id"] for r in rows if (r["corruption"], r["severity"]) == (entry.corruption, entry.severity)]
        judged = [clean[sample] for sample in ids if clean[sample] is not None]
        assert (len(ids), len(judged)) == (entry.num_samples, entry.n)
        assert len(ids) <= 10
        assert entry.clean_accuracy == pytest.approx(sum(judged) / len(judged), abs=1e-6)


def test_an_evaluation_is_the_same_every_time(world: Any, row: RowOf) -> None:
    first = evaluated(world, mixed(row))
    again = world.evaluate(force=True)
    assert again.manifest_digest == first.manifest_digest
    assert world.evaluate().cached


def test_the_batch_size_changes_no_conclusion(world: Any, row: RowOf) -> None:
    first = report_of(world, evaluated(world, mixed(row)))
    other = report_of(world, world.evaluate(config=replace(world_config(), microbatch_size=3)))
    assert first.overall == other.overall
    assert first.retrieval == other.retrieval


def test_without_labels_retrieval_is_what_remains(world: Any, row: RowOf) -> None:
    rows = [entry | {"label": None} for entry in mixed(row)]
    committed = evaluated(world, rows, classes=())
    report = report_of(world, committed)
    assert (report.num_labelled, report.overall.n, report.overall.balanced_accuracy) == (0, 0, None)
    assert (report.calibration.ece, report.calibration.temperature, report.calibration.n) == (None, None, 0)
    assert report.retrieval["image_to_text"].n == 8
    assert report.retrieval["image_to_text"].recall_at_1 is not None
    assert all(entry.n == 0 and entry.accuracy is None for entry in report.corruptions)
    predictions = predictions_of(world, committed.manifest)
    assert predictions["predicted"].null_count == len(predictions)
    assert all(finding.passed for finding in findings(world, committed.manifest).values())
    assert "none labelled" in preview(world.store, committed.manifest)


@pytest.mark.parametrize("num_test", [0, 1])
def test_tiny_and_empty_test_sets_have_a_report(world: Any, row: RowOf, num_test: int) -> None:
    rows = [entry for entry in mixed(row) if entry["split"] == "train"]
    rows += [row(100 + index, "test") | {"row": len(rows) + index} for index in range(num_test)]
    committed = evaluated(world, rows)
    report = report_of(world, committed)
    assert (report.num_samples, report.overall.n) == (num_test, num_test)
    assert (report.overall.accuracy is None) == (num_test == 0)
    assert report.calibration.temperature is None, "there is nothing to fit it on"
    assert all(finding.passed for finding in findings(world, committed.manifest).values())
    assert preview(world.store, committed.manifest)


def test_a_class_absent_from_the_test_split_is_no_error(world: Any, row: RowOf) -> None:
    rows = [entry | {"label": "cat" if entry["split"] == "test" else "dog"} for entry in mixed(row)]
    report = report_of(world, evaluated(world, rows))
    assert report.overall.balanced_accuracy == report.overall.accuracy
    assert [entry.value for entry in report.slices if entry.slice == "label"] == ["cat"]


def test_samples_that_are_not_selected_are_not_evaluated(world: Any, row: RowOf) -> None:
    rows = [entry | {"selected": entry["row"] % 2 == 0} for entry in mixed(row)]
    assert report_of(world, evaluated(world, rows)).num_samples == 8


def test_captions_that_are_identical_count_as_hits(world: Any, row: RowOf) -> None:
    """Texts go round in fives, so a pool of eight holds duplicates: chance at 1 is above 1/8."""
    report = report_of(world, evaluated(world, mixed(row)))
    chance = report.retrieval["image_to_text"].chance_at_1
    assert chance is not None
    assert chance > 1 / 8
    assert report.retrieval["text_to_image"].chance_at_1 == pytest.approx(1 / 8, abs=1e-6), "no two pictures are alike"


def test_a_preview_shows_slices_and_damage(world: Any, row: RowOf) -> None:
    markdown = preview(world.store, evaluated(world, mixed(row)).manifest)
    assert markdown.count("data:image/svg+xml;base64,") == 2
    assert "| image to text |" in markdown
    assert len(markdown) < 100_000


def test_a_test_sample_in_the_ledger_is_a_leak(world: Any, row: RowOf) -> None:
    rows = mixed(row)
    consumed = [rows[0]["id"], rows[30]["id"], rows[31]["id"]]
    finding = findings(world, evaluated(world, rows, consumed=consumed).manifest)["no_leakage"]
    assert not finding.passed
    assert finding.failing_ids == ("zoo/d1/0030", "zoo/d1/0031")


def test_another_sample_of_its_group_in_the_ledger_is_a_leak_too(world: Any, row: RowOf) -> None:
    rows = mixed(row)
    rows[0]["group"] = rows[30]["group"] = "the same picture"
    finding = findings(world, evaluated(world, rows).manifest)["no_leakage"]
    assert (finding.passed, finding.failing_ids) == (False, ("zoo/d1/0030",))


def test_a_group_of_another_source_is_another_group(world: Any, row: RowOf) -> None:
    rows = mixed(row)
    rows[0]["id"] = "aquarium" + rows[0]["id"].removeprefix("zoo")
    rows[0]["group"] = rows[30]["group"] = "the same word"
    assert findings(world, evaluated(world, rows).manifest)["no_leakage"].passed


def replaced(world: Any, manifest: Manifest, name: str, data: bytes | Path) -> Manifest:
    digest = world.store.put_bytes(data if isinstance(data, bytes) else data.read_bytes())
    outputs = [o.model_copy(update={"digest": digest}) if o.name == name else o for o in manifest.outputs]
    return manifest.model_copy(update={"outputs": outputs})


def test_a_missing_prediction_fails_with_its_sample(world: Any, row: RowOf, tmp_path: Path) -> None:
    manifest = evaluated(world, mixed(row)).manifest
    table = predictions_of(world, manifest)
    forged = replaced(world, manifest, "predictions.parquet", write_parquet(table.slice(1), tmp_path / "p"))
    finding = findings(world, forged)["predictions_match_split"]
    assert (finding.passed, finding.failing_ids) == (False, ("zoo/d1/0024",))


def test_a_slice_that_the_predictions_do_not_support_fails(world: Any, row: RowOf) -> None:
    manifest = evaluated(world, mixed(row)).manifest
    report = report_of(world, evaluated(world, mixed(row)))
    assert findings(world, manifest)["scores_follow_predictions"].passed
    better = [entry.model_copy(update={"balanced_accuracy": 1.0, "accuracy": 1.0}) for entry in report.slices]
    forged = replaced(world, manifest, "report.json", report.model_copy(update={"slices": better}).encode())
    assert not findings(world, forged)["scores_follow_predictions"].passed


def test_an_accuracy_the_predictions_do_not_support_fails(world: Any, row: RowOf, tmp_path: Path) -> None:
    manifest = evaluated(world, mixed(row)).manifest
    table = predictions_of(world, manifest)
    wrong = [entry | {"correct": True if entry["label"] else None} for entry in table.to_pylist()]
    forged = replaced(
        world, manifest, "predictions.parquet", write_parquet(table_of(wrong, table.schema), tmp_path / "p")
    )
    finding = findings(world, forged)["predictions_match_split"]
    assert not finding.passed
    assert finding.detail.endswith("as reported, got 1.0")


def test_a_report_whose_slices_lost_samples_fails(world: Any, row: RowOf) -> None:
    manifest = evaluated(world, mixed(row)).manifest
    report = read_report(world.store, manifest)
    forged = report.model_copy(update={"slices": report.slices[1:]})
    finding = findings(world, replaced(world, manifest, "report.json", forged.encode()))["counts_add_up"]
    assert (finding.passed, finding.detail.startswith("slice modalities: expected 16 samples")) == (False, True)


def test_a_report_with_an_impossible_number_or_missing_part_fails(world: Any, row: RowOf) -> None:
    manifest = evaluated(world, mixed(row)).manifest
    report = read_report(world.store, manifest)
    forged = report.model_copy(update={"overall": report.overall.model_copy(update={"accuracy": 1.5})})
    finding = findings(world, replaced(world, manifest, "report.json", forged.encode()))["report_complete"]
    assert (finding.passed, finding.detail) == (False, "numbers outside their range: .overall.accuracy = 1.5")
    (finding,) = findings(world, replaced(world, manifest, "report.json", b"{}")).values()
    assert not finding.passed
    assert "is not an evaluation report" in finding.detail


def test_a_model_of_another_release_is_refused(world: Any, row: RowOf) -> None:
    rows = mixed(row)
    world.release(rows)
    world.model(("cat", "dog"))
    world.release([entry | {"label": "dog"} for entry in rows])
    with pytest.raises(CheckError, match="batch_plan r1: is stale"):
        world.evaluate()


def test_weights_that_are_not_finite_are_refused(world: Any, row: RowOf) -> None:
    world.release(mixed(row))
    world.model(("cat", "dog"))
    poison(world)
    with pytest.raises(StageError, match="zoo/d1/0024: its probabilities are not finite"):
        world.evaluate()


@pytest.mark.parametrize(
    ("asset", "name"),
    [
        ("model", "weights.safetensors"),
        ("model", "config.json"),
        ("dataset_release", "samples.parquet"),
        ("dataset_release", "shards.json"),
    ],
)
def test_a_flipped_bit_of_what_is_read_is_refused(world: Any, row: RowOf, asset: str, name: str) -> None:
    world.release(mixed(row))
    world.model(("cat", "dog"))
    digest = require_ref(world.store, asset, Partition(release="r1")).output(name).digest
    key = f"{world.store.prefix}/{object_key(digest)}"
    data = bytearray(world.store.get_bytes(digest))
    data[len(data) // 2] ^= 1
    world.store.client.put_object(Bucket=world.store.bucket, Key=key, Body=bytes(data))
    with pytest.raises(ObjectCorruptError, match=digest.removeprefix("sha256:")):
        world.evaluate()


def test_another_environment_than_the_action_names_is_refused(world: Any, row: RowOf) -> None:
    world.release(mixed(row))
    world.model(("cat", "dog"))
    action = world.workspace.resolve("evaluation", Partition(release="r1"), {"libraries": {"torch": "1.0"}})
    with pytest.raises(StageError, match="torch differs from what the action declares: expected 1.0"):
        compute_evaluation(Job(store=world.store, action=action, workdir=world.folder))


def test_a_configuration_without_its_section_is_refused(world: Any, row: RowOf) -> None:
    open_by_hand(world.store, "r9", sections={"evaluation": {"num_bins": 0}})
    with pytest.raises(SpecError, match="num_bins: is unusable: expected at least 1, got 0"):
        world.workspace.resolve("evaluation", Partition(release="r9"), {})


def world_config() -> EvaluationConfig:
    return EvaluationConfig(max_corruption_samples=10, corruptions=())


def poison(world: Any) -> None:
    """Commits the same model with a weight that is not a number."""
    path = world.folder / "weights.safetensors"
    weights = load_file(path)
    weights["classifier.bias"][0] = float("nan")
    save_file(weights, path)
    world.commit_model()


def test_predictions_are_readable_with_plain_pyarrow(world: Any, row: RowOf, tmp_path: Path) -> None:
    committed = evaluated(world, mixed(row))
    path = world.store.fetch(committed.manifest.output("predictions.parquet").digest, tmp_path)
    assert pq.read_table(path).schema.names == [
        "id", "split", "label", "language", "combination", "corruption", "severity", "predicted", "confidence",
        "correct",
    ]  # fmt: skip
