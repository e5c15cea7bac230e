"""What is evaluated: one network, asked about samples of one release, clean and damaged. Needs torch."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mm_assets.batching.samples import ReleaseReader, Sample
from mm_assets.evaluation.config import CorruptionConfig, EvaluationConfig
from mm_assets.evaluation.corruptions import damage
from mm_assets.evaluation.rows import Row, keyed_subset
from mm_assets.evaluation.slices import Judged
from mm_assets.modalities.device import device_of
from mm_assets.store.job import Job
from mm_assets.training.network import load_network
from mm_assets.training.predict import Predictions, predict

#: Samples held decoded at a time while a split is judged.
CHUNK_ROWS = 512

Embeddings = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A network's predictions on samples of a release; ``classes`` are what its outputs stand for."""

    reader: ReleaseReader
    predict: Callable[[Sequence[Sample]], Predictions]
    classes: tuple[str, ...]

    def judge(
        self, rows: Sequence[Row], change: Callable[[Sample], Sample] = lambda sample: sample
    ) -> tuple[Judged, Embeddings]:
        """Predictions and embeddings of ``rows``, each sample passed through ``change`` first."""
        parts = [
            self.predict([change(sample) for sample in self.reader.read([row.row for row in chunk])])
            for chunk in (rows[first : first + CHUNK_ROWS] for first in range(0, len(rows), CHUNK_ROWS))
        ]
        empty_BK = np.zeros((0, len(self.classes)), np.float32)
        probs_BK = np.concatenate([empty_BK, *(part.probs_BK for part in parts)]).astype(np.float64)
        judged = Judged(rows=rows, probs_BK=probs_BK, classes=self.classes)
        names = parts[0].embeddings if parts else {}
        return judged, {name: np.concatenate([part.embeddings[name] for part in parts]) for name in names}


@dataclass(frozen=True, kw_only=True, slots=True)
class Damaged:
    """Predictions on damaged samples; ``indices`` say which of the split's rows they are."""

    corruption: str
    severity: int
    indices: Sequence[int]
    judged: Judged


def load_subject(job: Job, config: EvaluationConfig) -> Subject:
    """The job's model, ready to be asked about the job's release."""
    config_path = job.fetch("model", "config.json")
    device = device_of("evaluation", job.placement)
    network = load_network(config_path, job.fetch("model", "weights.safetensors")).to(device)
    return Subject(
        reader=ReleaseReader(job),
        predict=lambda samples: predict(network, samples, batch_size=config.microbatch_size),
        classes=tuple(json.loads(config_path.read_bytes())["classes"]),
    )


def judge_damaged(
    subject: Subject, rows: Sequence[Row], corruption: CorruptionConfig, severity: int, config: EvaluationConfig
) -> Damaged:
    """Predictions on the damaged selves of at most ``max_corruption_samples`` samples that have the modality."""
    num_needed = 2 if corruption.is_drop else 1
    able = [
        index
        for index, row in enumerate(rows)
        if corruption.modality in row.modalities and len(row.modalities) >= num_needed
    ]
    picked = keyed_subset([rows[index] for index in able], config.max_corruption_samples, "corruption", config.seed)
    indices = [able[position] for position in picked]
    judged, _ = subject.judge(
        [rows[index] for index in indices], lambda sample: damage(sample, corruption, severity, config.seed)
    )
    return Damaged(corruption=corruption.name, severity=severity, indices=indices, judged=judged)
