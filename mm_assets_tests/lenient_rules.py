"""Rules that a model of the smallest configuration passes, for tests that need a promotion."""

from pathlib import Path
from typing import Literal

_THRESHOLDS = """\
schema: mm.thresholds/2
promote_to: {promote_to}
evidence: {{min_samples: 1}}
overall: {{disabled: a handful of samples}}
slices: {{disabled: a handful of samples}}
calibration: {{disabled: a handful of samples}}
corruptions: {{disabled: a handful of samples}}
retrieval: {{disabled: a handful of samples}}
production: {{disabled: a handful of samples}}
"""


def write_lenient_rules(folder: Path, *, promote_to: Literal["candidate", "production"]) -> Path:
    """Makes ``folder`` an ``MM_CONFIG_DIR``: a release that is opened with it pins gates that any model passes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "promotion.yaml").write_text(_THRESHOLDS.format(promote_to=promote_to), encoding="utf-8")
    return folder
