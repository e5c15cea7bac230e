"""A small world for decisions: reports of any quality, and releases whose three inputs are committed and checked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mm_assets.evaluation.report import PREDICTIONS_SCHEMA, Report
from mm_assets.identity.canonical import canonical_json, digest_json
from mm_assets.materialize import Workspace, packaged_rules
from mm_assets.promotion.config import THRESHOLDS_FILE, Thresholds, parse_thresholds
from mm_assets.releases.spec import ReleasePin, ReleaseSpec
from mm_assets.settings import Settings
from mm_assets.store.commit import Committed
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import Store
from mm_assets.store.tables import table_of, write_parquet
from mm_assets_tests.by_hand import make_by_hand, open_by_hand


def described(name: str, owner: str, licence: str) -> dict[str, Any]:
    """A source as a release record has it."""
    return {
        "schema": "mm.source/1", "source": name, "source_system": "test", "owner": owner, "licence": licence,
        "allowed_uses": ["any"], "retention": "P10Y", "privacy_class": "public", "label_schema_version": "1",
        "annotation_guideline_version": "1", "annotator_cohort": "none", "adjudication_rule": "none",
        "approval": {"status": "approved", "by": "data office", "at": "2026-01-01T00:00:00Z"},
        "digest": digest_json(name),
    }  # fmt: skip


SOURCES = [described("emoji", "Unicode", "CC-BY-4.0"), described("speech", "not declared", "not declared")]


#: Of a model without video.
LAYOUT = {"pack_tokens": 64, "image_size": 64, "image_patch": 16, "num_mels": 40, "audio_stack": 4}
CLASSES = [f"class {number}" for number in range(8)] + ["food | drink"]


def predictions(right: float, *, num: int = 200, prefix: str = "s", labelled: bool = True) -> pa.Table:
    """``num`` undamaged predictions of which the share ``right`` is correct, and a damaged one that is not."""
    rows: list[dict[str, object]] = []
    for number in range(num):
        label = CLASSES[number % len(CLASSES)] if labelled else None
        # The same samples at every share: what a worse model gets right, a better one does too.
        is_right = (number * 389 % 1000) / 1000 < right
        row = {"id": f"{prefix}{number:04d}", "split": "test", "label": label, "language": "en"}
        row |= {"combination": "text", "corruption": "", "severity": 0, "confidence": 0.5}
        rows.append(row | {"predicted": label if is_right else "wrong", "correct": is_right if labelled else None})
    rows.append(rows[0] | {"corruption": "image_blur", "severity": 3, "predicted": "wrong", "correct": False})
    return table_of(rows, PREDICTIONS_SCHEMA)


@pytest.fixture(name="predictions")
def predictions_fixture() -> Callable[..., pa.Table]:
    """See ``predictions``."""
    return predictions


def score(value: float | None, n: int) -> dict[str, Any]:
    return {"accuracy": value, "balanced_accuracy": value, "n": n}


@pytest.fixture
def report_of() -> Callable[..., Report]:
    """A report in which the named numbers are as given and all others are good."""

    def build(
        *,
        overall: float | None = 0.5,
        num_labelled: int = 200,
        worst_slice: float = 0.4,
        slice_count: int = 80,
        ece: float = 0.2,
        ece_after: float | None = 0.05,
        damaged: float = 0.45,
        recall: float = 0.6,
        pool: int = 100,
    ) -> Report:
        n = num_labelled
        has = n > 0
        slices = [
            {"slice": "modalities", "value": "text+image", "num_samples": 120, **score(overall, n and n - slice_count)},
            {
                "slice": "language",
                "value": "ja",
                "num_samples": 80,
                **score(worst_slice if has else None, n and slice_count),
            },
        ]
        retrieval = {"n": pool, **{f"recall_at_{k}": recall for k in (1, 5, 10)}}
        retrieval |= {f"chance_at_{k}": k / pool for k in (1, 5, 10)}
        return Report.model_validate(
            {
                "schema": "mm.evaluation/1",
                "split": "test",
                "num_samples": 200,
                "num_labelled": n,
                "classes": CLASSES if has else [],
                "overall": score(overall if has else None, n),
                "slices": slices,
                "corruptions": [
                    {
                        "corruption": corruption,
                        "severity": 3,
                        "num_samples": 100,
                        "clean_accuracy": overall if has else None,
                        "clean_balanced_accuracy": overall if has else None,
                        **score(damaged if has else None, min(n, 100)),
                    }
                    for corruption in ("image_jpeg", "image_blur", "image_low_light", "text_ocr")
                ],
                "calibration": {
                    "ece": ece if has else None,
                    "temperature": 1.5 if has and ece_after is not None else None,
                    "ece_after": ece_after if has else None,
                    "n": n,
                    "num_fitted_on": n,
                    "num_bins": 15,
                },
                "retrieval": {"image_to_text": retrieval, "text_to_image": retrieval},
            }
        )

    return build


@pytest.fixture
def thresholds() -> Thresholds:
    """The packaged thresholds."""
    return parse_thresholds(packaged_rules()[THRESHOLDS_FILE], THRESHOLDS_FILE)


@pytest.fixture
def workspace(store: Store, settings: Settings) -> Workspace:
    """What decisions are made and checked through."""
    return Workspace(settings, store)


@pytest.fixture
def commit_inputs(workspace: Workspace, tmp_path: Path) -> Callable[..., ReleaseSpec]:
    """Opens a release and commits its dataset release, plan, model and evaluation, each with a passed check."""

    def commit(
        release: str,
        report: Report,
        *,
        parent: str | None = None,
        version: int = 0,
        right: float = 0.5,
        weights: bytes | None = None,
        samples: bytes | None = None,
    ) -> ReleaseSpec:
        pin = ReleasePin(release=parent, digest=digest_json(parent)) if parent else None
        spec = open_by_hand(workspace.store, release, parent=pin)
        record = {"sources": SOURCES, "drops": [{"source": "emoji", "drop": "d1"}], "coverage": {"num_selected": 200}}
        metrics = pa.table({"loss": [2.0, 1.25], "num_samples": pa.array([100, 100], pa.int32())})
        table = predictions(right, labelled=report.num_labelled > 0)
        contents: dict[str, dict[str, bytes | pa.Table]] = {
            "dataset_release": {
                "record.json": canonical_json(record),
                "samples.parquet": samples or f"samples of {release}".encode(),
                "shards.json": b"{}",
            },
            "batch_plan": {"plan.parquet": b"plan"},
            "model": {
                "weights.safetensors": weights or f"{release} {version}".encode(),
                "metrics.parquet": metrics,
                "config.json": canonical_json({"layout": LAYOUT}),
                "ledger.parquet": b"ledger",
            },
            "evaluation": {"report.json": report.encode(), "predictions.parquet": table},
        }
        for asset, files in contents.items():
            make_by_hand(workspace, asset, release, {name: _write(tmp_path / name, v) for name, v in files.items()})
        return spec

    return commit


def _write(path: Path, value: bytes | pa.Table) -> Path:
    if isinstance(value, pa.Table):
        return write_parquet(value, path)
    path.write_bytes(value)
    return path


@pytest.fixture
def promote(workspace: Workspace, commit_inputs: Callable[..., ReleaseSpec]) -> Callable[..., Committed]:
    """Commits a release's inputs and its promotion; the registry is left to the test."""

    def run(release: str, report: Report, **options: Any) -> Committed:
        commit_inputs(release, report, **options)
        return workspace.run("promotion", Partition(release=release), environment={})

    return run
