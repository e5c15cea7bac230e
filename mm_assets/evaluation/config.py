"""What an evaluation measures. All of it decides numbers, so all of it is fingerprinted."""

from dataclasses import dataclass

from mm_assets.errors import SpecError
from mm_assets.modalities.table import MODALITIES, NAMES, PACKED

MAX_SEVERITY = 5

#: Every corruption by name, with the modality it needs. What each does is written in the modality's ``corruptions``.
CORRUPTION_MODALITY = {
    corruption: row.name for row in MODALITIES.values() for corruption in (*row.corruptions, *row.further_corruptions)
} | {f"drop_{name}": name for name in NAMES}


@dataclass(frozen=True, kw_only=True, slots=True)
class CorruptionConfig:
    """One corruption and the severities (1 to 5) it is applied at. Dropping a modality knows severity 1 only."""

    name: str
    severities: tuple[int, ...] = (1, 3, 5)

    def __post_init__(self) -> None:
        if self.name not in CORRUPTION_MODALITY:
            raise SpecError(
                f"corruption {self.name}: is unknown: expected one of {', '.join(sorted(CORRUPTION_MODALITY))}."
            )
        highest = 1 if self.is_drop else MAX_SEVERITY
        if not self.severities or any(not 1 <= severity <= highest for severity in self.severities):
            raise SpecError(
                f"corruption {self.name}: severities are unusable: expected some from 1 to {highest}, "
                f"got {list(self.severities)}."
            )

    @property
    def is_drop(self) -> bool:
        """Whether the modality is dropped; a sample then needs another one that remains."""
        return self.name.startswith("drop_")

    @property
    def modality(self) -> str:
        """The modality a sample needs for this corruption to apply."""
        return CORRUPTION_MODALITY[self.name]


DEFAULT_CORRUPTIONS = (
    *(CorruptionConfig(name=corruption) for name in PACKED for corruption in MODALITIES[name].corruptions),
    *(CorruptionConfig(name=f"drop_{name}", severities=(1,)) for name in NAMES),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """The evaluation section of a configuration.

    ``split`` is judged; the temperature is fitted on ``calibration_split``. Corruptions use the same at most
    ``max_corruption_samples`` samples at every severity, retrieval a pool of at most ``max_retrieval_pool``; both are
    chosen by a keyed order of the ids, so that adding data changes few of them. ``seed`` belongs to the evaluation and
    not to the release: two releases have the same damage. ``num_threads`` is fixed because another number of
    threads sums in another order.
    """

    split: str = "test"
    calibration_split: str = "val"
    microbatch_size: int = 64
    num_threads: int = 1
    num_bins: int = 15
    seed: int = 0
    max_corruption_samples: int = 200
    max_retrieval_pool: int = 1000
    corruptions: tuple[CorruptionConfig, ...] = DEFAULT_CORRUPTIONS

    def __post_init__(self) -> None:
        for name in ("microbatch_size", "num_threads", "num_bins", "max_corruption_samples", "max_retrieval_pool"):
            if getattr(self, name) < 1:
                raise SpecError(f"evaluation {name}: is unusable: expected at least 1, got {getattr(self, name)}.")
        if self.split == self.calibration_split:
            raise SpecError(
                f"evaluation calibration_split: is unusable: expected another split than {self.split}, "
                "or the calibration is fitted on what it is judged on."
            )
        names = [corruption.name for corruption in self.corruptions]
        if len(set(names)) != len(names):
            raise SpecError(f"evaluation corruptions: a name is listed twice: got {', '.join(names)}.")
