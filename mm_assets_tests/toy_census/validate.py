"""Checks a census."""

import json

from mm_assets.checks.rules import Rules
from mm_assets.checks.validations import Finding
from mm_assets.releases.inputs import InputContext, Resolved
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store


def resolve_census(context: InputContext) -> Resolved:
    """A census is made from the frozen samples alone."""
    return Resolved(params={}, inputs=context.all_upstream())


def validate_census(store: Store, manifest: Manifest, rules: Rules) -> tuple[Finding, ...]:
    """No count is larger than the number of samples."""
    del rules
    counts = json.loads(store.get_bytes(manifest.output("census.json").digest))
    wrong = sorted(name for name, count in counts.items() if not 0 <= count <= manifest.stats["rows_out"])
    return (Finding(rule="counts", passed=not wrong, detail=f"{len(wrong)} counts are out of range"),)
