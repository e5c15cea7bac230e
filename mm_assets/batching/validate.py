"""The check of ``batch_plan``: every training sample exactly once per epoch, no pack overfull, lanes balanced."""

import numpy as np
import pyarrow as pa

from mm_assets.batching.config import PlanConfig
from mm_assets.batching.plan import COLUMNS, PLAN
from mm_assets.batching.rows import CLS_TOKENS, TOKEN_COLUMNS, train_rows
from mm_assets.batching.schedule import Ints
from mm_assets.checks.rules import Rules
from mm_assets.checks.validations import MAX_FAILING_IDS, Finding
from mm_assets.scratch import scratch_folder
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store
from mm_assets.store.tables import read_parquet

#: Lanes may differ by this share of a lane's tokens in one epoch, or by one pack where lanes are short.
LANE_TOLERANCE = 0.1


def validate_batch_plan(store: Store, manifest: Manifest, rules: Rules) -> tuple[Finding, ...]:
    """Everything that must hold before a plan may be followed."""
    del rules
    config = PlanConfig(**manifest.params["plan"])
    with scratch_folder("check") as folder:
        plan = read_parquet(store.fetch(manifest.output("plan.parquet").digest, folder))
        frozen = store.fetch(manifest.input("dataset_release").digest("samples.parquet"), folder)
        samples = read_parquet(frozen, COLUMNS)
    return check_plan(plan, samples, config)


def check_plan(plan: pa.Table, samples: pa.Table, config: PlanConfig) -> tuple[Finding, ...]:
    """The findings about a plan for ``samples``."""
    if plan.schema.remove_metadata() != PLAN or len(plan) == 0:
        detail = f"expected rows of {', '.join(PLAN.names)}, got {len(plan)} of {', '.join(plan.column_names)}"
        return (Finding(rule="plan_has_its_columns", passed=False, detail=detail),)
    return (
        check_coverage(plan, train_rows(samples), samples["id"], config),
        check_capacity(plan, config),
        check_lanes(plan, config),
    )


def check_coverage(plan: pa.Table, rows: Ints, ids: pa.ChunkedArray, config: PlanConfig) -> Finding:
    """Each whole epoch holds each training sample once, an epoch cut short at most once, and no other sample."""
    epoch, sample = plan["epoch"].to_numpy(), plan["sample"].to_numpy()
    wrong: set[int] = set()
    for number in range(int(epoch.max()) + 1):
        found, counts = np.unique(sample[epoch == number], return_counts=True)
        wrong.update(found[(counts != 1) | ~np.isin(found, rows)].tolist())
        if number < epoch.max() or config.num_steps is None:
            wrong.update(np.setdiff1d(rows, found).tolist())
    named = plan["id"].to_pylist()
    wrong.update(row for row, name in zip(sample.tolist(), named, strict=True) if name != _id(ids, row))
    detail = f"{len(rows)} training samples, {int(epoch.max()) + 1} epochs, {len(wrong)} samples missing or repeated"
    return _finding("every_sample_once_per_epoch", detail, [str(_id(ids, row)) for row in sorted(wrong)])


def check_capacity(plan: pa.Table, config: PlanConfig) -> Finding:
    """Slots of a pack lie one behind the other, and the last ends inside the pack."""
    start, end = plan["start"].to_numpy(), _ends(plan)
    same_pack = np.ones(len(plan) - 1, np.bool_)
    for name in ("step", "lane", "pack"):
        values = plan[name].to_numpy()
        same_pack &= values[1:] == values[:-1]
    expected = np.concatenate([[0], np.where(same_pack, end[:-1], 0)])
    wrong = np.flatnonzero((start != expected) | (end > config.pack_tokens))
    detail = f"longest pack {int(end.max())} of {config.pack_tokens} tokens, {len(wrong)} slots misplaced"
    return _finding("packs_within_capacity", detail, [plan["id"][int(row)].as_py() for row in wrong])


def check_lanes(plan: pa.Table, config: PlanConfig) -> Finding:
    """No lane has much more to do than the others in the first epoch."""
    first = plan["epoch"].to_numpy() == 0
    lane, tokens = plan["lane"].to_numpy()[first], (_ends(plan) - plan["start"].to_numpy())[first]
    work = np.bincount(lane, weights=tokens, minlength=config.num_lanes)
    allowed = max(config.pack_tokens * config.packs_per_lane, LANE_TOLERANCE * work.mean())
    spread = float(work.max() - work.min())
    detail = f"tokens per lane from {int(work.min())} to {int(work.max())}: expected within {int(allowed)}"
    is_balanced = spread <= allowed and len(work) == config.num_lanes
    return Finding(rule="lanes_are_balanced", passed=is_balanced, detail=detail)


def _ends(plan: pa.Table) -> Ints:
    tokens = sum(plan[name].to_numpy().astype(np.int64) for name in TOKEN_COLUMNS.values())
    return plan["start"].to_numpy() + CLS_TOKENS + tokens


def _id(ids: pa.ChunkedArray, row: int) -> str | None:
    return ids[row].as_py() if 0 <= row < len(ids) else None


def _finding(rule: str, detail: str, failing: list[str]) -> Finding:
    return Finding(
        rule=rule,
        passed=not failing,
        detail=detail,
        num_failing=len(failing),
        failing_ids=tuple(failing[:MAX_FAILING_IDS]),
    )
