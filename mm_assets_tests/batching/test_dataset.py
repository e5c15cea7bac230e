"""A plan through torch's own loader."""

import functools
from itertools import islice
from pathlib import Path

import pytest

from mm_assets.batching.collate import Batch
from mm_assets.batching.dataset import PlanDataset, StepLoader
from mm_assets.batching.loader import PlanLoader
from mm_assets.batching.plan_file import PlanFile
from mm_assets.batching.samples import LOADER_COLUMNS, LocalReader
from mm_assets.errors import StageError
from mm_assets.store.tables import read_parquet, write_parquet
from mm_assets_tests.batching.conftest import Planning
from mm_assets_tests.batching.test_loader import LAYOUT, PLAN, is_equal, reader

__all__ = ["reader"]

Steps = list[tuple[int, list[Batch]]]


def open_loader(folder: Path) -> PlanLoader:
    samples = read_parquet(folder / "samples.parquet", LOADER_COLUMNS)
    tensors = LocalReader(samples, lambda _: folder / "tensors.arrow")
    return PlanLoader(PlanFile(folder / "plan.parquet"), tensors, LAYOUT, {"a": 0, "b": 1})


@pytest.fixture
def folder(tmp_path: Path, reader: LocalReader) -> Path:
    Planning(tmp_path, reader.samples, PLAN, seed=1)
    write_parquet(reader.samples, tmp_path / "samples.parquet")
    return tmp_path


def steps(folder: Path, *, num_workers: int = 0) -> StepLoader:
    return StepLoader(PlanDataset(functools.partial(open_loader, folder), range(4)), num_workers=num_workers)


def is_same(first: Steps, second: Steps) -> bool:
    return [step for step, _ in first] == [step for step, _ in second] and all(
        is_equal(one, other)
        for (_, left), (_, right) in zip(first, second, strict=True)
        for one, other in zip(left, right, strict=True)
    )


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize(
    "num_workers", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)]
)
def test_steps_are_the_same_for_any_number_of_workers(folder: Path, num_workers: int) -> None:
    alone = list(steps(folder))
    assert [step for step, _ in alone] == list(range(7))
    assert is_same(list(steps(folder, num_workers=num_workers)), alone)


def test_a_loader_goes_on_from_its_state_with_other_workers(folder: Path) -> None:
    whole = list(steps(folder))
    stopped = steps(folder, num_workers=2)
    first = list(islice(stopped, 3))
    resumed = steps(folder, num_workers=0)
    resumed.load_state_dict(stopped.state_dict())
    assert is_same([*first, *resumed], whole)


@pytest.mark.parametrize("state", [{}, {"step": -1}, {"step": "3"}, {"step": 1, "epoch": 2}])
def test_a_state_of_another_loader_is_refused(folder: Path, state: dict[str, int]) -> None:
    with pytest.raises(StageError, match=r"expected \{'step': N\}"):
        steps(folder).load_state_dict(state)
