"""The report of an evaluation and its predictions: records, schema and writing.

A number that no sample supports is null and its ``n`` is 0. ``n`` always counts the labelled samples a number stands
on, ``num_samples`` all of them. Numbers are rounded to six decimals.
"""

from pathlib import Path
from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mm_assets.errors import ObjectCorruptError
from mm_assets.evaluation.calibration import Calibration
from mm_assets.evaluation.metrics import Accuracy
from mm_assets.evaluation.retrieval import CUTOFFS, Recall
from mm_assets.identity.canonical import canonical_json
from mm_assets.store.commit import OutputFile
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store
from mm_assets.store.tables import JSON_TYPE, PARQUET_TYPE, write_parquet

DECIMALS = 6

PREDICTIONS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("language", pa.string()),
        pa.field("combination", pa.string(), nullable=False),
        pa.field("corruption", pa.string(), nullable=False),
        pa.field("severity", pa.int32(), nullable=False),
        pa.field("predicted", pa.string()),
        pa.field("confidence", pa.float64()),
        pa.field("correct", pa.bool_()),
    ]
)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Score(_Record):
    """Accuracy over ``n`` labelled samples."""

    accuracy: float | None
    balanced_accuracy: float | None
    n: int


class SliceScore(Score):
    """One value of one slice; the values of a slice share out all samples."""

    slice: str
    value: str
    num_samples: int


class CorruptionScore(Score):
    """One corruption at one severity, next to the same samples undamaged."""

    corruption: str
    severity: int
    num_samples: int
    clean_accuracy: float | None
    clean_balanced_accuracy: float | None


class CalibrationScore(_Record):
    """Expected calibration error before and after the temperature fitted on ``num_fitted_on`` other samples."""

    ece: float | None
    temperature: float | None
    ece_after: float | None
    n: int
    num_fitted_on: int
    num_bins: int


class RetrievalScore(_Record):
    """Recall of one direction over ``n`` queries in a pool of ``n``, with the chance level of the same pool."""

    recall_at_1: float | None
    recall_at_5: float | None
    recall_at_10: float | None
    chance_at_1: float | None
    chance_at_5: float | None
    chance_at_10: float | None
    n: int


class Report(_Record):
    """``mm.evaluation/1``."""

    schema_: Literal["mm.evaluation/1"] = Field(alias="schema")
    split: str
    num_samples: int
    num_labelled: int
    classes: list[str]
    overall: Score
    slices: list[SliceScore]
    corruptions: list[CorruptionScore]
    calibration: CalibrationScore
    retrieval: dict[str, RetrievalScore]

    def encode(self) -> bytes:
        """Canonical bytes."""
        return canonical_json(self.model_dump(by_alias=True))


def read_report(store: Store, manifest: Manifest) -> Report:
    """The report of an evaluation.

    Raises:
        ObjectMissingError: the manifest has no report. ObjectCorruptError: it is not a report.
    """
    digest = manifest.output("report.json").digest
    return parse_report(store.get_bytes(digest), store.object_uri(digest))


def parse_report(data: bytes, where: str) -> Report:
    """The report in ``data``.

    Raises:
        ObjectCorruptError: it is not a report; the message names ``where``.
    """
    try:
        return Report.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise ObjectCorruptError(
            f"{where}: is not an evaluation report: "
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}. Run the evaluation again."
        ) from error


def rounded(value: float | None) -> float | None:
    """``value`` as the report holds it."""
    return None if value is None else round(value, DECIMALS)


def score(measured: Accuracy) -> Score:
    """``measured`` as the report holds it."""
    return Score(
        accuracy=rounded(measured.accuracy), balanced_accuracy=rounded(measured.balanced_accuracy), n=measured.n
    )


def calibration_score(measured: Calibration, num_bins: int) -> CalibrationScore:
    """``measured`` as the report holds it."""
    return CalibrationScore(
        ece=rounded(measured.ece),
        temperature=rounded(measured.temperature),
        ece_after=rounded(measured.ece_after),
        n=measured.n,
        num_fitted_on=measured.num_fitted_on,
        num_bins=num_bins,
    )


def retrieval_score(measured: Recall) -> RetrievalScore:
    """``measured`` as the report holds it."""
    numbers: dict[str, float | int | None] = {"n": measured.n}
    for k, recall, chance in zip(CUTOFFS, measured.recall, measured.chance, strict=True):
        numbers |= {f"recall_at_{k}": rounded(recall), f"chance_at_{k}": rounded(chance)}
    return RetrievalScore.model_validate(numbers)


def write_outputs(report: Report, predictions: pa.Table, workdir: Path) -> tuple[OutputFile, ...]:
    """Writes ``report.json`` and ``predictions.parquet``."""
    path = workdir / "report.json"
    path.write_bytes(report.encode())
    table = workdir / "predictions.parquet"
    return (
        OutputFile(name="report.json", path=path, media_type=JSON_TYPE),
        OutputFile(
            name="predictions.parquet",
            path=write_parquet(predictions, table),
            media_type=PARQUET_TYPE,
            num_rows=len(predictions),
        ),
    )
