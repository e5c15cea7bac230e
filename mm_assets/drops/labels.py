"""Where a label comes from: what the drop says about all of its labels, and what a sample says about its own.

A sample says it in further columns of its index, or in the JSON member of its tar, by the names below.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

#: Columns of a sample's own statements, each with the names it is delivered under.
DELIVERED = {
    "label_guideline": ("annotation_guideline_version", "guideline_version"),
    "label_cohort": ("annotator_cohort",),
    "label_adjudication": ("adjudication_rule",),
    "label_confidence": ("label_confidence",),
}
LABEL_FIELDS = tuple(pa.field(name, pa.float64() if name == "label_confidence" else pa.string()) for name in DELIVERED)
#: The same statements about all labels of a drop, by the names in its ``annotation``.
DROP_FIELDS = {
    "label_guideline": "guideline_version",
    "label_cohort": "annotator_cohort",
    "label_adjudication": "adjudication_rule",
}
_NAMES = tuple(f'"{name}"' for names in DELIVERED.values() for name in names)


def label_statements(metadata: str) -> dict[str, Any]:
    """What a sample says about its label, from its metadata as JSON; a confidence outside [0, 1] says nothing."""
    if not any(name in metadata for name in _NAMES):
        return {}
    values = json.loads(metadata)
    if not isinstance(values, Mapping):
        return {}
    found = {
        column: next((values[name] for name in names if values.get(name) is not None), None)
        for column, names in DELIVERED.items()
    }
    confidence = found.pop("label_confidence")
    stated: dict[str, Any] = {name: str(value) for name, value in found.items() if value is not None}
    number = _number(confidence)
    return stated | ({} if number is None else {"label_confidence": number})


def _number(value: object) -> float | None:
    """A confidence given as a number, or as the text that a CSV file holds."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and 0 <= number <= 1 else None
