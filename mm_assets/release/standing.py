"""Whether a frozen release may still be used: what was excluded on record since, and what its sources allow today.

Neither is a property of its bytes, so no outcome of a check is kept about it: it is asked each time that a later stage
takes the release, and costs one release record and the descriptions of its sources.
"""

from datetime import UTC, datetime

from mm_assets.checks.exclusions import read_exclusions
from mm_assets.checks.rules import Rules
from mm_assets.checks.validations import MAX_FAILING_IDS, Finding
from mm_assets.releases.terms import judge_terms, recorded_deliveries
from mm_assets.store.manifest import Manifest
from mm_assets.store.objects import Store


def judge_standing(store: Store, manifest: Manifest, rules: Rules) -> tuple[Finding, ...]:
    """What has changed about a frozen release since it was frozen.

    Args:
        store: Where it is.
        manifest: Of its ``dataset_release``.
        rules: In force for it now.
    """
    return _exclusions(manifest, rules), _terms(store, manifest)


def _exclusions(manifest: Manifest, rules: Rules) -> Finding:
    frozen_without = manifest.params.get("exclusions")
    known = set(map(str, frozen_without)) if isinstance(frozen_without, list) else set[str]()
    added = sorted(set(read_exclusions(rules).samples) - known)
    detail = "it was frozen without every sample that is excluded on record"
    if added:
        detail = (
            f"{len(added)} samples or patterns were excluded on record since it was frozen: "
            f"{', '.join(added[:MAX_FAILING_IDS])}; freeze it again with "
            f"`mm run --release {manifest.partition.release}`"
        )
    return Finding(
        rule="excluded_since",
        passed=not added,
        detail=detail,
        num_failing=len(added),
        failing_ids=tuple(added[:MAX_FAILING_IDS]),
    )


def _terms(store: Store, manifest: Manifest) -> Finding:
    use = manifest.params.get("use")
    deliveries = list(recorded_deliveries(store, manifest))
    today = datetime.now(UTC).date()
    refused = judge_terms(store, deliveries, use=None if use is None else str(use), today=today).refused
    return Finding(
        rule="terms",
        passed=not refused,
        detail="; ".join(refused) or "every source allows it today",
        num_failing=len(refused),
        failing_ids=refused[:MAX_FAILING_IDS],
    )
