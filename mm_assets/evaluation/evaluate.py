"""Runs the model over the held-out split, clean and damaged, and writes the report and every prediction.

Reads only what its recipe pins. Nothing measured here depends on time, so the same model gets the same report.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from mm_assets.batching.samples import ReleaseReader, Sample
from mm_assets.evaluation.calibration import measure_calibration
from mm_assets.evaluation.config import CorruptionConfig, EvaluationConfig
from mm_assets.evaluation.corruptions import corrupt_audio, corrupt_image, corrupt_text, corruption_rng
from mm_assets.evaluation.inputs import MODALITIES, Row, keyed_subset, read_rows
from mm_assets.evaluation.report import (
    PREDICTIONS_SCHEMA,
    CorruptionScore,
    Report,
    RetrievalScore,
    calibration_score,
    retrieval_score,
    rounded,
    score,
    write_outputs,
)
from mm_assets.evaluation.retrieval import DIRECTIONS, measure_recall
from mm_assets.evaluation.slices import Judged, measure_slices
from mm_assets.identity import digest_bytes
from mm_assets.settings import Settings
from mm_assets.store.commit import StageResult
from mm_assets.store.manifest import Manifest, Recipe, read_manifest
from mm_assets.store.objects import Store
from mm_assets.store.tables import table_of
from mm_assets.training.network import load_network
from mm_assets.training.predict import Predictions, predict

#: Samples held decoded at a time while a split is judged.
CHUNK_ROWS = 512

Embeddings = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is evaluated: predictions of one network on samples of one release."""

    reader: ReleaseReader
    predict: Callable[[Sequence[Sample]], Predictions]
    classes: tuple[str, ...]

    def judge(self, rows: Sequence[Row]) -> tuple[Judged, Embeddings]:
        """Predictions and embeddings of ``rows``, read in chunks."""
        parts = [
            self.predict(self.reader.read([row.row for row in rows[first : first + CHUNK_ROWS]]))
            for first in range(0, len(rows), CHUNK_ROWS)
        ]
        embeddings = {
            modality: np.concatenate([part.embeddings[modality] for part in parts]) for modality in MODALITIES if parts
        }
        return self.judged(rows, parts), embeddings

    def judged(self, rows: Sequence[Row], parts: Sequence[Predictions]) -> Judged:
        """Predictions of ``rows`` in float64; also for no rows."""
        empty_BK = np.zeros((0, len(self.classes)))
        probs_BK = np.concatenate([empty_BK, *(part.probs_BK[:, : len(self.classes)] for part in parts)])
        return Judged(rows=rows, probs_BK=probs_BK, classes=self.classes)


def compute_evaluation(store: Store, recipe: Recipe, workdir: Path, settings: Settings) -> StageResult:
    """Judges the model of ``recipe`` on the held-out split of its release.

    Raises:
        StageError: the model's outputs are unusable.
        ObjectMissingError: an input does not exist. ObjectCorruptError: its bytes changed.
    """
    config = TypeAdapter(EvaluationConfig).validate_python(recipe.params["config"])
    release, model = (_input_manifest(store, recipe, asset) for asset in ("dataset_release", "model"))
    subject = _load_subject(store, release, model, workdir=workdir, config=config)
    rows = read_rows(store, release, config.split)
    clean, embeddings = subject.judge(rows)
    fitted, _ = subject.judge(read_rows(store, release, config.calibration_split))
    damaged = [
        (corruption, severity, *_judge_damaged(subject, rows, corruption, severity, config))
        for corruption in config.corruptions
        for severity in corruption.severities
    ]
    known = clean.labelled
    report = Report(
        schema="mm.evaluation/1",
        split=config.split,
        num_samples=len(rows),
        num_labelled=int(known.sum()),
        classes=list(subject.classes),
        overall=score(clean.score()),
        slices=measure_slices(clean),
        corruptions=[_corruption_score(clean, *entry) for entry in damaged],
        calibration=calibration_score(
            measure_calibration(
                clean.probs_BK[known],
                clean.label_ids[known],
                fit_probs_BK=fitted.probs_BK[fitted.labelled],
                fit_labels_B=fitted.label_ids[fitted.labelled],
                num_bins=config.num_bins,
            ),
            config.num_bins,
        ),
        retrieval=_measure_retrieval(subject, rows, embeddings, config),
    )
    records = _records(clean, config.split, "", 0)
    for corruption, severity, _, judged in damaged:
        records += _records(judged, config.split, corruption.name, severity)
    predictions = table_of(records, PREDICTIONS_SCHEMA)
    stats = {
        "rows_in": len(rows),
        "rows_out": len(predictions),
        "dead_letters": 0,
        "num_labelled": report.num_labelled,
        "balanced_accuracy": report.overall.balanced_accuracy,
        "ece": report.calibration.ece,
        "temperature": report.calibration.temperature,
    }
    return StageResult(files=write_outputs(report, predictions, workdir), stats=stats)


def _input_manifest(store: Store, recipe: Recipe, asset: str) -> Manifest:
    return read_manifest(store, next(entry.digest for entry in recipe.inputs if entry.asset == asset))


def _load_subject(
    store: Store, release: Manifest, model: Manifest, *, workdir: Path, config: EvaluationConfig
) -> Subject:
    folder = workdir / "model"
    names = ("config.json", "weights.safetensors")
    config_path, weights_path = (store.fetch(model.output(name).digest, folder, name) for name in names)
    network = load_network(config_path, weights_path)
    classes = json.loads(config_path.read_bytes())["classes"]
    return Subject(
        reader=ReleaseReader(store, release, workdir / "cache"),
        predict=lambda samples: predict(network, samples, batch_size=config.microbatch_size),
        classes=tuple(classes),
    )


def _judge_damaged(
    subject: Subject, rows: Sequence[Row], corruption: CorruptionConfig, severity: int, config: EvaluationConfig
) -> tuple[list[int], Judged]:
    """Indices into ``rows`` of the samples the corruption applies to, and the predictions on their damaged selves."""
    needed = 2 if corruption.name.startswith("drop_") else 1
    able = [
        index
        for index, row in enumerate(rows)
        if corruption.modality in row.modalities and len(row.modalities) >= needed
    ]
    picked = keyed_subset([rows[index] for index in able], config.max_corruption_samples, "corruption", config.seed)
    indices = [able[position] for position in picked]
    chosen = [rows[index] for index in indices]
    parts = [
        subject.predict(
            [
                damage(sample, corruption, severity, config.seed)
                for sample in subject.reader.read([row.row for row in chosen[first : first + CHUNK_ROWS]])
            ]
        )
        for first in range(0, len(chosen), CHUNK_ROWS)
    ]
    return indices, subject.judged(chosen, parts)


def damage(sample: Sample, corruption: CorruptionConfig, severity: int, seed: int) -> Sample:
    """A damaged copy of ``sample``; one that lacks the modality comes back as it is."""
    name, modality = corruption.name, corruption.modality
    value = getattr(sample, modality)
    if value is None:
        return sample
    rng = corruption_rng(seed, name, severity, sample.id)
    if name.startswith("drop_"):
        return replace(sample, **{modality: None})
    if modality == "text":
        return replace(sample, text=corrupt_text(value, severity, rng))
    if modality == "image":
        return replace(sample, image=corrupt_image(name, value, severity, rng))
    return replace(sample, audio=corrupt_audio(name, value, severity, rng))


def _corruption_score(
    clean: Judged, corruption: CorruptionConfig, severity: int, indices: list[int], judged: Judged
) -> CorruptionScore:
    before = clean.select(indices).score()
    return CorruptionScore(
        corruption=corruption.name,
        severity=severity,
        num_samples=len(indices),
        clean_accuracy=rounded(before.accuracy),
        clean_balanced_accuracy=rounded(before.balanced_accuracy),
        **score(judged.score()).model_dump(),
    )


def _measure_retrieval(
    subject: Subject, rows: Sequence[Row], embeddings: Embeddings, config: EvaluationConfig
) -> dict[str, RetrievalScore]:
    scores: dict[str, RetrievalScore] = {}
    for asked, answered in DIRECTIONS:
        both = [index for index, row in enumerate(rows) if {asked, answered} <= set(row.modalities)]
        pair = "+".join(sorted((asked, answered)))
        picked = keyed_subset([rows[index] for index in both], config.max_retrieval_pool, "retrieval", pair)
        indices = [both[position] for position in picked]
        if not indices:
            scores[f"{asked}_to_{answered}"] = retrieval_score(measure_recall(*_no_vectors(), []))
            continue
        pool = [rows[index] for index in indices]
        measured = measure_recall(
            embeddings[asked][indices], embeddings[answered][indices], _pool_keys(subject.reader, pool, answered)
        )
        scores[f"{asked}_to_{answered}"] = retrieval_score(measured)
    return scores


def _no_vectors() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.zeros((0, 1), np.float32), np.zeros((0, 1), np.float32)


def _pool_keys(reader: ReleaseReader, pool: Sequence[Row], answered: str) -> list[set[str]]:
    """What each sample of the pool counts as: its group, and the digest of its features in the answering modality."""
    keys: list[set[str]] = []
    for first in range(0, len(pool), CHUNK_ROWS):
        chunk = pool[first : first + CHUNK_ROWS]
        for row, sample in zip(chunk, reader.read([row.row for row in chunk]), strict=True):
            own = {digest_bytes(np.asarray(getattr(sample, answered)).tobytes())}
            keys.append(own if row.group is None else own | {f"group {row.group}"})
    return keys


def _records(judged: Judged, split: str, corruption: str, severity: int) -> list[dict[str, object]]:
    predicted, confidence = judged.predicted_ids, judged.probs_BK.max(axis=1, initial=0.0)
    correct, labelled = predicted == judged.label_ids, judged.labelled
    has_classes = bool(judged.classes)
    return [
        {
            "id": row.id,
            "split": split,
            "label": row.label,
            "language": row.language,
            "combination": row.combination,
            "corruption": corruption,
            "severity": severity,
            "predicted": judged.classes[predicted[index]] if has_classes else None,
            "confidence": float(confidence[index]) if has_classes else None,
            "correct": bool(correct[index]) if labelled[index] else None,
        }
        for index, row in enumerate(judged.rows)
    ]
