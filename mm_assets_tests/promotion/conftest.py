"""A small world for decisions: reports of any quality, and releases whose three inputs are committed and checked."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mm_assets.checks.validations import Finding, record_validation
from mm_assets.evaluation.report import PREDICTIONS_SCHEMA, Report
from mm_assets.identity.canonical import canonical_json, digest_json
from mm_assets.promotion.config import Thresholds, read_thresholds
from mm_assets.promotion.decide import CHAMPION_EVALUATION, CHAMPION_MODEL, compute_promotion
from mm_assets.promotion.inputs import resolve_promotion
from mm_assets.releases.spec import ParentPin, ReleaseSpec, write_spec
from mm_assets.settings import Settings, read_settings
from mm_assets.store.commit import Committed, OutputFile, StageResult, materialize
from mm_assets.store.manifest import Input, Partition, Recipe
from mm_assets.store.objects import Store
from mm_assets.store.refs import require_ref
from mm_assets.store.tables import table_of, write_parquet

SOURCES = [
    {"source": "emoji", "owner": "Unicode", "licence": "CC-BY-4.0", "digest": digest_json("source")},
    {"source": "speech", "owner": None, "licence": None, "digest": digest_json("other")},
]


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
    return read_thresholds(read_settings({}).config_file("promotion.yaml"))


@pytest.fixture
def commit_inputs(store: Store, tmp_path: Path) -> Callable[..., ReleaseSpec]:
    """Opens a release and commits its dataset release, model and evaluation, each with a passed validation."""

    def commit(
        release: str,
        report: Report,
        *,
        parent: str | None = None,
        version: int = 0,
        right: float = 0.5,
        weights: bytes | None = None,
    ) -> ReleaseSpec:
        partition = Partition(release=release)
        spec = ReleaseSpec(
            schema="mm.release/1",
            release=release,
            drops=[],
            parent=ParentPin(release=parent, digest=digest_json(parent)) if parent else None,
            exclusions=[],
            policy={},
            encoder={},
            seed=0,
            num_shards=1,
            recipe={},
        )
        write_spec(store, spec)
        inputs: list[Input] = []
        labelled = report.num_labelled > 0
        table = write_parquet(predictions(right, labelled=labelled), tmp_path / "table.parquet")
        contents = {
            "dataset_release": {"record.json": canonical_json({"sources": SOURCES})},
            "model": {"weights.safetensors": weights or f"{release} {version}".encode()},
            "evaluation": {"report.json": report.encode(), "predictions.parquet": table.read_bytes()},
        }
        for asset, files in contents.items():
            params = {"version": version} if asset == "model" else {}
            inputs.append(_commit(store, tmp_path, asset, partition, files, params, tuple(inputs)))
        return spec

    return commit


def _commit(
    store: Store,
    folder: Path,
    asset: str,
    partition: Partition,
    files: dict[str, bytes],
    params: dict[str, Any],
    inputs: tuple[Input, ...],
) -> Input:
    recipe = Recipe(
        asset=asset, partition=partition, code=digest_json("code"), params=params, environment={}, inputs=inputs
    )

    def compute() -> StageResult:
        outputs: list[OutputFile] = []
        for name, data in files.items():
            (folder / name).write_bytes(data)
            outputs.append(OutputFile(name=name, path=folder / name, media_type="application/octet-stream"))
        return StageResult(files=tuple(outputs), stats={"rows_out": 200, "num_steps": 10, "final_loss": 1.25})

    committed = materialize(store, recipe, compute)
    ref = require_ref(store, asset, partition)
    record_validation(store, ref, rules=digest_json("rules"), findings=[Finding(rule="r", passed=True, detail="good")])
    return Input(asset=asset, partition={"release": partition.release}, digest=committed.manifest_digest)


@pytest.fixture
def promote(
    store: Store, settings: Settings, tmp_path: Path, commit_inputs: Callable[..., ReleaseSpec]
) -> Callable[..., Committed]:
    """Commits a release's inputs and its promotion; the registry is left to the test."""

    def run(release: str, report: Report, *, champion: Committed | None = None, **options: Any) -> Committed:
        spec = commit_inputs(release, report, **options)
        recipe = resolve_promotion(store, spec, Partition(release=release), {})
        if champion is not None:
            pairs = ((CHAMPION_MODEL, "model"), (CHAMPION_EVALUATION, "evaluation"))
            own = [champion.manifest.input(asset).model_copy(update={"asset": role}) for role, asset in pairs]
            recipe = replace(recipe, inputs=(*recipe.inputs, *own))
        return materialize(store, recipe, lambda: compute_promotion(store, recipe, tmp_path, settings))

    return run
