"""A small world for decisions: reports of any quality, and releases whose three inputs are committed and checked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_assets.checks.validations import Finding, record_validation
from mm_assets.evaluation.report import Report
from mm_assets.identity.canonical import canonical_json, digest_json
from mm_assets.promotion.config import Thresholds, read_thresholds
from mm_assets.promotion.decide import compute_promotion
from mm_assets.promotion.inputs import resolve_promotion
from mm_assets.releases.spec import ParentPin, ReleaseSpec, write_spec
from mm_assets.settings import Settings, read_settings
from mm_assets.store.commit import Committed, OutputFile, StageResult, materialize
from mm_assets.store.manifest import Input, Partition, Recipe
from mm_assets.store.objects import Store
from mm_assets.store.refs import require_ref

SOURCES = [
    {"source": "emoji", "owner": "Unicode", "licence": "CC-BY-4.0", "digest": digest_json("source")},
    {"source": "speech", "owner": None, "licence": None, "digest": digest_json("other")},
]


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
                "classes": ["animals", "food | drink"] if has else [],
                "overall": score(overall if has else None, n),
                "slices": slices,
                "corruptions": [
                    {
                        "corruption": "image_blur",
                        "severity": 3,
                        "num_samples": 100,
                        "clean_accuracy": overall if has else None,
                        "clean_balanced_accuracy": overall if has else None,
                        **score(damaged if has else None, n and 100),
                    }
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

    def commit(release: str, report: Report, *, parent: str | None = None, version: int = 0) -> ReleaseSpec:
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
        contents = {
            "dataset_release": {"record.json": canonical_json({"sources": SOURCES})},
            "model": {"weights.safetensors": f"{release} {version}".encode()},
            "evaluation": {"report.json": report.encode()},
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

    def run(release: str, report: Report, *, parent: str | None = None, version: int = 0) -> Committed:
        spec = commit_inputs(release, report, parent=parent, version=version)
        recipe = resolve_promotion(store, spec, Partition(release=release), {})
        return materialize(store, recipe, lambda: compute_promotion(store, recipe, tmp_path, settings))

    return run
