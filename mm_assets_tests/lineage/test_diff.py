"""Two releases side by side: what moved and why, and which differences are more than chance."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from mm_assets.checks.exclusions import EXCLUSIONS, Exclusions
from mm_assets.checks.rules import replace_rules
from mm_assets.configurations import SMOKE
from mm_assets.errors import UsageError
from mm_assets.evaluation.report import PREDICTIONS_SCHEMA, CalibrationScore, Report, Score, SliceScore
from mm_assets.identity.canonical import digest_bytes
from mm_assets.lineage.diff import Metric, Moved, diff_releases
from mm_assets.lineage.diff_page import diff_page
from mm_assets.materialize import Workspace
from mm_assets.pipeline import OPTIONAL_RULES
from mm_assets.settings import read_settings
from mm_assets.store.commit import Committed
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import Store
from mm_assets.store.refs import require_ref
from mm_assets.store.tables import write_parquet
from mm_assets_tests.by_hand import action_of, commit_files, input_of, open_by_hand

NUM_TESTED = 40
IDS = [f"zoo/d1/{number:03d}" for number in range(NUM_TESTED + 6)]


def freeze(store: Store, release: str, folder: Path, states: dict[str, str]) -> None:
    """A frozen release: per sample its split, or the reason it is left out for."""
    rows = [
        {"id": name, "split": "train" if state == "blurred" else state, "selected": state != "blurred"}
        | {"reasons": state if state == "blurred" else ""}
        for name, state in states.items()
    ]
    path = write_parquet(pa.Table.from_pylist(rows), folder / f"{release}.parquet")
    commit_files(store, action_of("dataset_release"), Partition(release=release), {"samples.parquet": path})


def train(store: Store, release: str, folder: Path, seed: int = 0) -> Committed:
    """A model of the release."""
    (folder / "weights").write_bytes(f"weights {release} {seed}".encode())
    return commit_files(
        store, action_of("model"), Partition(release=release), {"weights.safetensors": folder / "weights"}
    )


def evaluate(store: Store, release: str, folder: Path, num_right: int, *, first: int = 0) -> None:
    """An evaluation that was right about the first ``num_right`` of its samples, which begin with IDS[first]."""
    tested = IDS[first : first + NUM_TESTED]
    rows = [
        {"id": name, "split": "test", "label": "<b>cat</b>", "language": "en", "combination": "text"}
        | {"corruption": "", "severity": 0, "predicted": "<b>cat</b>" if index < num_right else "dog"}
        | {"confidence": 0.5, "correct": index < num_right}
        for index, name in enumerate(tested)
    ]
    share = num_right / NUM_TESTED
    score = {"accuracy": share, "balanced_accuracy": share, "n": NUM_TESTED}
    values = {"modalities": "text", "language": "en", "label": "<b>cat</b>"}
    report = Report(
        schema="mm.evaluation/1", split="test", num_samples=NUM_TESTED, num_labelled=NUM_TESTED, classes=["cat"],
        overall=Score(**score), corruptions=[], retrieval={},
        slices=[SliceScore(slice=name, value=value, num_samples=NUM_TESTED, **score) for name, value in values.items()],
        calibration=CalibrationScore(ece=None, temperature=None, ece_after=None, n=0, num_fitted_on=0, num_bins=10),
    )  # fmt: skip
    (folder / "report.json").write_bytes(report.encode())
    path = write_parquet(pa.Table.from_pylist(rows, schema=PREDICTIONS_SCHEMA), folder / "predictions.parquet")
    files = {"report.json": folder / "report.json", "predictions.parquet": path}
    model = input_of(train(store, release, folder))
    commit_files(store, action_of("evaluation", [model]), Partition(release=release), files)


@pytest.fixture
def two(store: Store, tmp_path: Path) -> Store:
    """r1 and r2 with another seed; one sample gone, two new, one left out, one in another split."""
    open_by_hand(store, "r1")
    open_by_hand(store, "r2", config=replace(SMOKE, seed=SMOKE.seed + 1))
    states = dict.fromkeys(IDS[:10], "train")
    freeze(store, "r1", tmp_path, {**states, "zoo/d1/gone": "val"})
    freeze(
        store, "r2", tmp_path, {**states, IDS[0]: "blurred", IDS[1]: "test", "zoo/d2/a": "train", "zoo/d2/b": "train"}
    )
    return store


def test_samples_are_counted_by_what_they_were_and_are(two: Store) -> None:
    report = diff_releases(two, "r1", "r2")
    assert report.samples == (
        Moved(first="absent", second="train", count=2, ids=("zoo/d2/a", "zoo/d2/b")),
        Moved(first="train", second="left out: blurred", count=1, ids=(IDS[0],)),
        Moved(first="train", second="test", count=1, ids=(IDS[1],)),
        Moved(first="val", second="absent", count=1, ids=("zoo/d1/gone",)),
    )
    assert report.num_same == 8
    assert {entry.name: (entry.first, entry.second) for entry in report.settings} == {
        "seed": (SMOKE.seed, SMOKE.seed + 1)
    }
    assert report.metrics == ()


def test_a_release_is_equal_to_itself(two: Store, tmp_path: Path) -> None:
    evaluate(two, "r1", tmp_path, 20)
    report = diff_releases(two, "r1", "r1")
    assert (report.settings, report.made_by, report.samples, report.num_same) == ((), (), (), 11)
    assert {(entry.difference, entry.interval) for entry in report.metrics} == {(0.0, (0.0, 0.0))}


def test_a_difference_is_measured_on_the_samples_that_both_were_tested_on(two: Store, tmp_path: Path) -> None:
    evaluate(two, "r1", tmp_path, 10)
    evaluate(two, "r2", tmp_path, 34, first=6)
    overall, *rest = diff_releases(two, "r1", "r2").metrics
    # Of 34 shared samples r1 is right about those that it numbers 6 to 9, r2 about all.
    assert overall == Metric(
        slice="overall", value="", first=0.25, num_first=40, second=0.85, num_second=40, num_shared=34,
        difference=pytest.approx(30 / 34, abs=1e-6), interval=overall.interval,
    )  # fmt: skip
    assert overall.interval is not None
    assert 0.7 < overall.interval[0] < 30 / 34 < overall.interval[1] < 1
    assert [(entry.slice, entry.value, entry.num_shared) for entry in rest] == [
        ("modalities", "text", 34), ("language", "en", 34), ("label", "<b>cat</b>", 34)
    ]  # fmt: skip


def test_the_page_holds_all_of_it_and_loads_nothing(two: Store, tmp_path: Path) -> None:
    evaluate(two, "r1", tmp_path, 10)
    evaluate(two, "r2", tmp_path, 34)
    page = diff_page(diff_releases(two, "r1", "r2"))
    assert page.count("<svg") == 2
    assert "<td>&lt;b&gt;cat&lt;/b&gt;</td>" in page
    assert "<b>cat" not in page
    assert "better" in page
    assert "zoo/d2/a" in page
    assert all(word not in page for word in ("<script", "<link", "src="))


def test_scores_of_another_model_are_not_shown(two: Store, tmp_path: Path) -> None:
    evaluate(two, "r1", tmp_path, 10)
    evaluate(two, "r2", tmp_path, 34)
    older = require_ref(two, "model", Partition(release="r2")).manifest
    assert diff_releases(two, "r1", "r2").metrics
    newer = train(two, "r2", tmp_path, seed=1).manifest_digest
    assert diff_releases(two, "r1", "r2").metrics == ()
    train(two, "r2", tmp_path)
    assert require_ref(two, "model", Partition(release="r2")).manifest == older
    assert diff_releases(two, "r1", "r2").metrics
    assert newer != older


def test_rules_and_exclusions_on_record_are_shown_with_their_reason(two: Store) -> None:
    files = {EXCLUSIONS: Exclusions(samples={IDS[3]: "asked for"}).encode(), "snapshot.yaml": b"# other"}
    rules = Workspace(read_settings({}), two).rules("r2")
    replace_rules(two, "r2", rules, files, reason="by law", by="ada", optional=OPTIONAL_RULES)
    changes = {entry.name: (entry.first, entry.second) for entry in diff_releases(two, "r1", "r2").settings}
    assert changes["excluded_on_record"] == (None, {IDS[3]: "asked for"})
    assert changes["rules_replaced_because"] == (None, "by law")
    assert changes["rules.snapshot.yaml"][1] == digest_bytes(b"# other") != changes["rules.snapshot.yaml"][0]
    assert "rules.features.yaml" not in changes


def test_a_release_that_is_not_open_is_named(two: Store) -> None:
    with pytest.raises(UsageError, match="release r9"):
        diff_releases(two, "r1", "r9")
