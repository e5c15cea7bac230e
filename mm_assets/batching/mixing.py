"""How often each sample is in an epoch: shares of the data, weights of groups, and phases that differ in them.

Counts are decided in advance and exact. Over the epochs of a phase a sample of weight 1.5 occurs once and twice in
turn; which samples of a group begin is keyed, and a group has its share in every epoch to one sample.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.batching.config import PhaseConfig, PlanConfig
from mm_assets.errors import StageError
from mm_assets.identity.randomness import keyed_rng

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int32]
#: A group's value where samples have none.
NONE = "(none)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A phase for given samples.

    Attributes:
        mean: How often each sample is in an epoch on average.
        offset: Where a sample's turn begins, from 0 to below 1; spread evenly over a group.
    """

    mean: Floats
    offset: Floats

    def counts(self, epoch: int) -> Counts:
        """How often each sample is in the ``epoch``-th epoch of the phase."""
        before, after = (np.floor(number * self.mean + self.offset) for number in (epoch, epoch + 1))
        return (after - before).astype(np.int32)


def epoch_counts(
    config: PlanConfig, num_samples: int, groups: Mapping[str, pa.Array], *, seed: int
) -> Iterator[Counts]:
    """How often each sample is in each epoch: of ``num_epochs``, or without end where the steps are given.

    Args:
        config: Its phases.
        num_samples: Of how many samples.
        groups: By name, for every name in ``grouped_by(config)``, the value of each sample, as text or null.
        seed: The run's.

    Raises:
        StageError: a weight is given to a value that no sample has, or nothing is left to train on.
    """
    epoch = 0
    phases = config.phases or (PhaseConfig(),)
    for number, described in enumerate(phases):
        phase = make_phase(described, num_samples, groups, seed=seed, number=number)
        is_last = number == len(phases) - 1
        done = 0
        while is_last or done < described.num_epochs:
            if config.num_steps is None and epoch == config.num_epochs:
                return
            yield phase.counts(done)
            done, epoch = done + 1, epoch + 1


def grouped_by(config: PlanConfig) -> list[str]:
    """What the phases group samples by."""
    return sorted({phase.group_by for phase in config.phases if phase.group_by})


def make_phase(
    config: PhaseConfig, num_samples: int, groups: Mapping[str, pa.Array], *, seed: int, number: int
) -> Phase:
    """The ``number``-th phase for these samples."""
    rank = keyed_rng("plan.share", seed).permutation(num_samples)
    taking = rank < max(1, round(config.share * num_samples))
    if config.group_by is None:
        return Phase(mean=taking.astype(np.float64), offset=np.zeros(num_samples))
    values = pc.fill_null(groups[config.group_by], NONE).dictionary_encode()
    names: list[str] = values.dictionary.to_pylist()
    group = values.indices.to_numpy()
    mean_of_group = _means(config, names, np.bincount(group[taking], minlength=len(names)))
    mean = np.where(taking, mean_of_group[group], 0.0)
    return Phase(mean=mean, offset=_offsets(group, taking, keyed_rng("plan.turns", seed, number).random(num_samples)))


def _offsets(group: npt.NDArray[np.int32], taking: npt.NDArray[np.bool_], draw: Floats) -> Floats:
    """The samples of each group that take part, in the order of ``draw``, spread evenly from 0 to 1."""
    offset = np.zeros(len(group))
    rows = np.flatnonzero(taking)
    rows = rows[np.lexsort((draw[rows], group[rows]))]
    sizes = np.bincount(group[rows])
    first = np.cumsum(sizes) - sizes
    own = group[rows]
    offset[rows] = (np.arange(len(rows)) - first[own] + 0.5) / sizes[own]
    return offset


def _means(config: PhaseConfig, names: list[str], sizes: npt.NDArray[np.int64]) -> Floats:
    """How often a sample of each group is in an epoch."""
    unknown = sorted(set(config.weights) - set(names))
    if unknown:
        raise StageError(
            f"batch plan: weights name a {config.group_by} that no training sample has: expected one of "
            f"{', '.join(sorted(names))}, got {', '.join(unknown)}. Correct plan.phases."
        )
    factors = np.array([config.weights.get(name, 1.0) for name in names])
    weights = np.where(sizes > 0, factors * np.maximum(sizes, 1) ** (1.0 / config.temperature), 0.0)
    if not weights.sum():
        raise StageError(
            "batch plan: no sample is left to train on: all groups of plan.phases weigh nothing. Give one a weight."
        )
    return sizes.sum() * weights / weights.sum() / np.maximum(sizes, 1)
