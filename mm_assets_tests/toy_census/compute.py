"""Counts samples per modality."""

from mm_assets.identity.canonical import canonical_json
from mm_assets.modalities.table import NAMES
from mm_assets.store.commit import OutputFile, StageResult
from mm_assets.store.job import Job
from mm_assets.store.tables import JSON_TYPE, read_parquet


def compute_census(job: Job) -> StageResult:
    """Writes ``census.json``: selected samples that have each modality."""
    samples = read_parquet(job.fetch("dataset_release", "samples.parquet"))
    selected = samples.filter(samples["selected"])
    counts = {name: sum(selected[f"has_{name}"].to_pylist()) for name in NAMES}
    path = job.workdir / "census.json"
    path.write_bytes(canonical_json(counts))
    return StageResult(
        files=(OutputFile(name="census.json", path=path, media_type=JSON_TYPE),),
        stats={"rows_in": samples.num_rows, "rows_out": selected.num_rows},
    )
