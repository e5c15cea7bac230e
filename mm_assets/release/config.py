"""What decides the bytes of a dataset release: the configuration's section ``release``.

Every field is identity: it enters the fingerprint. The curation policy itself is pinned in the release spec, because
it is chosen when a release is opened; ``policies.py`` has the packaged ones.
"""

import math
from dataclasses import dataclass
from typing import Literal

from mm_assets.errors import SpecError

SPLITS = ("train", "val", "test")
#: Role of the release whose shards are included by reference.
PARENT = "parent"


@dataclass(frozen=True, kw_only=True, slots=True)
class FreezeConfig:
    """How rows become a release.

    Attributes:
        train_fraction: Share of leakage groups (not of samples) that train; the three add up to 1.
        val_fraction: Share for validation; 0 leaves the split empty.
        test_fraction: Share for testing; 0 leaves the split empty.
        drop_duplicates: Exclude all but one of the samples whose present modalities are all equal.
        drop_near_duplicates: Exclude all but one of the samples with equal text and nearly equal pictures and sound.
        group_near_duplicates: Keep samples with a nearly equal picture, clip or text in one split.
        min_linked_text_chars: Equal and nearly equal texts of at least this length stay in one split. Shorter ones are
            phrases that unrelated samples share, unless the text is all that a sample has.
        labels: ``optional`` keeps unlabelled samples (the objectives without labels remain), ``required`` excludes
            them.
        drift_limit: Total variation or population stability index above which a drift is reported as a warning.
    """

    train_fraction: float = 0.75
    val_fraction: float = 0.10
    test_fraction: float = 0.15
    drop_duplicates: bool = True
    drop_near_duplicates: bool = True
    group_near_duplicates: bool = True
    min_linked_text_chars: int = 48
    labels: Literal["optional", "required"] = "optional"
    drift_limit: float = 0.25

    @property
    def fractions(self) -> tuple[float, float, float]:
        """Shares in the order of ``SPLITS``."""
        return self.train_fraction, self.val_fraction, self.test_fraction

    def __post_init__(self) -> None:
        if min(self.fractions) < 0 or not math.isclose(sum(self.fractions), 1.0, abs_tol=1e-9):
            raise SpecError(
                f"release config: split fractions are unusable: expected three numbers from 0 that add up to 1, "
                f"got {', '.join(map(str, self.fractions))}."
            )
