"""A plan as a dataset of torch: the same batches in the same order for any number of worker processes.

``torch.utils.data.DataLoader(PlanDataset(...), batch_size=None, num_workers=N)`` yields one step after the other: a
loader asks its workers in turn, and worker w of N makes every N-th step from the w-th on. What is yet to come is one
number, so a run goes on with another number of workers.
"""

from collections.abc import Callable, Iterator, Sequence

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mm_assets.batching.collate import Batch
from mm_assets.batching.loader import PlanLoader
from mm_assets.errors import StageError

#: Steps that each worker has ready.
READ_AHEAD = 2

StepBatches = tuple[int, list[Batch]]


class PlanDataset(IterableDataset[StepBatches]):
    """Steps of a plan, each with one batch per lane of this process.

    Args:
        open_loader: Opens the plan and its samples; called once in every worker, so that none shares an open file. It
            must be picklable where workers are spawned.
        lanes: The lanes of this process, in order.
        first_step: Where to start; ``next_step`` from then on.
        last_step: Where to stop; None follows the plan to its end.
    """

    def __init__(
        self,
        open_loader: Callable[[], PlanLoader],
        lanes: Sequence[int],
        *,
        first_step: int = 0,
        last_step: int | None = None,
    ) -> None:
        super().__init__()
        self._open_loader = open_loader
        self._lanes = tuple(lanes)
        self.next_step = first_step
        self._last_step = last_step

    def __iter__(self) -> Iterator[StepBatches]:
        worker = get_worker_info()
        offset, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        loader = self._open_loader()
        last = loader.num_steps if self._last_step is None else self._last_step
        for step in range(self.next_step + offset, last, stride):
            yield step, [loader.batch(step, lane) for lane in self._lanes]


class StepLoader:
    """Steps of a dataset with its place kept: ``state_dict`` and ``load_state_dict`` as loaders of torch have.

    Args:
        dataset: The steps.
        num_workers: Processes that read; 0 reads when asked. Changes the speed and nothing else.
    """

    def __init__(self, dataset: PlanDataset, *, num_workers: int = 0) -> None:
        self._dataset = dataset
        self._num_workers = num_workers

    def __iter__(self) -> Iterator[StepBatches]:
        loader = DataLoader(
            self._dataset,
            batch_size=None,
            num_workers=self._num_workers,
            prefetch_factor=READ_AHEAD if self._num_workers else None,
            multiprocessing_context="forkserver" if self._num_workers else None,
        )
        for step, batches in loader:
            expected = self._dataset.next_step
            if step != expected:
                raise StageError(
                    f"batches: are out of order: expected those of step {expected}, got {step}. A process that reads "
                    "ended early; run the stage again."
                )
            # What is handed out counts as done: a step is trained on before the next one is asked for.
            self._dataset.next_step = step + 1
            yield step, batches

    def state_dict(self) -> dict[str, int]:
        """The next step."""
        return {"step": self._dataset.next_step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on from a ``state_dict``; also of another number of workers.

        Raises:
            StageError: it is no state of this loader.
        """
        step = state.get("step")
        if set(state) != {"step"} or not isinstance(step, int) or step < 0:
            raise StageError(f"batches: a state cannot be used: expected {{'step': N}}, got {state}.")
        self._dataset.next_step = step
