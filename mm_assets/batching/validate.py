"""The check of ``batch_plan``: every sample exactly as often as planned, no pack overfull, lanes balanced."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from mm_assets.batching.config import PlanConfig
from mm_assets.batching.mixing import epoch_counts
from mm_assets.batching.plan import Planned, read_planned
from mm_assets.batching.plan_file import PlanFile
from mm_assets.batching.rows import CLS_TOKENS, TOKEN_COLUMNS
from mm_assets.batching.schedule import Ints
from mm_assets.checks.rules import Rules
from mm_assets.checks.validations import MAX_FAILING_IDS, Finding
from mm_assets.errors import StageError
from mm_assets.scratch import scratch_folder
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store

#: Lanes may differ by this share of a lane's tokens in one epoch, or by one pack where lanes are short.
LANE_TOLERANCE = 0.1


def validate_batch_plan(store: Store, manifest: Manifest, rules: Rules) -> tuple[Finding, ...]:
    """Everything that must hold before a plan may be followed."""
    del rules
    params = manifest.params
    config = TypeAdapter(PlanConfig).validate_python(params["plan"])
    sizes = {name: int(str(params[name])) for name in ("image_size", "video_size")}
    with scratch_folder("check") as folder:
        plan = store.fetch(manifest.output("plan.parquet").digest, folder)
        frozen = store.fetch(manifest.input("dataset_release").digest("samples.parquet"), folder)
        return check_plan(plan, read_planned(frozen, config, **sizes), config, seed=int(str(params["seed"])))


def check_plan(path: Path, planned: Planned, config: PlanConfig, *, seed: int) -> tuple[Finding, ...]:
    """The findings about the plan in ``path`` for what should have been planned."""
    try:
        plan = PlanFile(path)
    except (StageError, pa.ArrowInvalid) as error:
        return (Finding(rule="plan_has_its_columns", passed=False, detail=str(error)),)
    coverage = _Coverage(planned, epoch_counts(config, len(planned.rows), planned.groups, seed=seed), config)
    capacity, lanes = _Capacity(planned, config), _Lanes(config)
    for slots in plan.read():
        for check in (coverage, capacity, lanes):
            check.add(slots)
    return coverage.finding(), capacity.finding(), lanes.finding()


class _Coverage:
    """Each epoch holds each sample as often as it is due, one cut short at most as often, and no other sample.

    What is due follows from the configuration, the samples and the seed, not from the plan. A pack begins with the
    oldest sample of its lane, so whatever is older than all lanes' last packs begin with must have been planned.
    """

    def __init__(self, planned: Planned, due: Iterator[npt.NDArray[np.int32]], config: PlanConfig) -> None:
        self._planned = planned
        self._due = due
        self._is_cut = config.num_steps is not None
        self._found: dict[int, Ints] = {}
        self._begun = np.zeros(config.num_lanes, np.int32)
        self._epoch = 0
        self._num_wrong = 0
        self._ids: list[str] = []

    def add(self, slots: pa.Table) -> None:
        """Counts some rows of the plan."""
        position, is_planned = _positions(self._planned, slots)
        self._note(slots["id"].filter(pa.array(~is_planned)))
        epochs, lane = slots["epoch"].to_numpy(), slots["lane"].to_numpy()
        for epoch in np.unique(epochs).tolist():
            found = self._found.setdefault(epoch, np.zeros(len(self._planned.rows), np.int32))
            np.add.at(found, position[is_planned & (epochs == epoch)], 1)
        begins = (slots["slot"].to_numpy() == 0) & (lane >= 0) & (lane < len(self._begun))
        np.maximum.at(self._begun, lane[begins], epochs[begins])
        while self._epoch < self._begun.min():
            self._compare(is_whole=True)

    def finding(self) -> Finding:
        """What was found once all rows are counted."""
        while self._found:
            self._compare(is_whole=not self._is_cut)
        num_epochs = self._epoch
        if not self._is_cut:
            for _ in self._due:
                self._compare(is_whole=True)
        detail = (
            f"{len(self._planned.rows)} training samples, {num_epochs} epochs, {self._num_wrong} times not as often "
            "as planned"
        )
        return _finding("every_sample_as_often_as_planned", detail, self._num_wrong, self._ids)

    def _compare(self, *, is_whole: bool) -> None:
        nothing = np.zeros(len(self._planned.rows), np.int32)
        due, found = next(self._due, nothing), self._found.pop(self._epoch, nothing)
        self._epoch += 1
        wrong = found != due if is_whole else found > due
        self._note(self._planned.ids.take(pa.array(np.flatnonzero(wrong))))

    def _note(self, ids: pa.Array | pa.ChunkedArray) -> None:
        self._num_wrong += len(ids)
        self._ids += ids[: max(0, MAX_FAILING_IDS - len(self._ids))].to_pylist()


class _Capacity:
    """Slots of a pack lie one behind the other, each as long as its sample, and the last ends inside the pack."""

    def __init__(self, planned: Planned, config: PlanConfig) -> None:
        self._planned = planned
        self._capacity = config.pack_tokens
        self._longest = 0
        self._num_wrong = 0
        self._ids: list[str] = []

    def add(self, slots: pa.Table) -> None:
        """Looks at some rows of the plan."""
        start, end = slots["start"].to_numpy(), _ends(slots)
        same_pack = np.ones(len(slots) - 1, np.bool_)
        for name in ("step", "lane", "pack"):
            values = slots[name].to_numpy()
            same_pack &= values[1:] == values[:-1]
        expected = np.concatenate([[0], np.where(same_pack, end[:-1], 0)])
        position, has_tokens = _positions(self._planned, slots)
        for name, column in TOKEN_COLUMNS.items():
            has_tokens &= self._planned.tokens[name][position] == slots[column].to_numpy()
        wrong = np.flatnonzero((start != expected) | (end > self._capacity) | ~has_tokens)
        self._longest = max(self._longest, int(end.max()))
        self._num_wrong += len(wrong)
        self._ids += slots["id"].take(pa.array(wrong[: max(0, MAX_FAILING_IDS - len(self._ids))])).to_pylist()

    def finding(self) -> Finding:
        """What was found once all rows are seen."""
        detail = f"longest pack {self._longest} of {self._capacity} tokens, {self._num_wrong} slots misplaced"
        return _finding("packs_within_capacity", detail, self._num_wrong, self._ids)


class _Lanes:
    """No lane has much more to do than the others in the first epoch."""

    def __init__(self, config: PlanConfig) -> None:
        self._config = config
        self._work = np.zeros(config.num_lanes, np.int64)
        self._num_foreign = 0

    def add(self, slots: pa.Table) -> None:
        """Counts the tokens of some rows of the plan."""
        first = slots["epoch"].to_numpy() == 0
        lane, tokens = slots["lane"].to_numpy()[first], (_ends(slots) - slots["start"].to_numpy())[first]
        known = (lane >= 0) & (lane < len(self._work))
        self._num_foreign += int((~known).sum())
        self._work += np.bincount(lane[known], weights=tokens[known], minlength=len(self._work)).astype(np.int64)

    def finding(self) -> Finding:
        """What was found once all rows are counted."""
        config = self._config
        allowed = max(config.pack_tokens * config.packs_per_lane, LANE_TOLERANCE * self._work.mean())
        spread = float(self._work.max() - self._work.min())
        detail = f"tokens per lane from {self._work.min()} to {self._work.max()}: expected within {int(allowed)}"
        if self._num_foreign:
            detail += f"; {self._num_foreign} slots of a lane outside 0 to {config.num_lanes - 1}"
        return Finding(rule="lanes_are_balanced", passed=spread <= allowed and not self._num_foreign, detail=detail)


def _positions(planned: Planned, slots: pa.Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Per slot the position of its sample among those to be planned, and whether row and id are those of one."""
    rows = slots["sample"].to_numpy()
    position = np.searchsorted(planned.rows, rows)
    is_planned = position < len(planned.rows)
    position[~is_planned] = 0
    if not len(planned.rows):
        return position, is_planned
    named = pc.call_function("equal", [planned.ids.take(pa.array(position)), slots["id"].combine_chunks()])
    return position, is_planned & (planned.rows[position] == rows) & named.to_numpy(zero_copy_only=False)


def _ends(slots: pa.Table) -> npt.NDArray[np.int64]:
    tokens = sum(slots[name].to_numpy().astype(np.int64) for name in TOKEN_COLUMNS.values())
    return slots["start"].to_numpy() + CLS_TOKENS + tokens


def _finding(rule: str, detail: str, num_failing: int, failing: list[str]) -> Finding:
    return Finding(
        rule=rule,
        passed=not num_failing,
        detail=detail,
        num_failing=num_failing,
        failing_ids=tuple(failing[:MAX_FAILING_IDS]),
    )
