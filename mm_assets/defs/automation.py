"""When a partition is materialized automatically.

A partition is requested once: when its inputs exist and every blocking check on them has passed. It is requested
again only when an input was repaired by a run that did not include it. Shards that a release does not have count
neither as targets nor as missing inputs.
"""

from collections.abc import Callable

import dagster as dg
from dagster import AutomationCondition as AC

from mm_assets.defs.partitions import to_partition

SENSOR_NAME = "automation"
TICK_INTERVAL_S = 15


class BelongsToRelease(dg.AutomationCondition[dg.AssetKey]):
    """True for the partitions that their release has: all of them, or the shards below its number of shards."""

    def __init__(self, num_shards: Callable[[str], int]) -> None:
        self._num_shards = num_shards

    @property
    def name(self) -> str:
        """Its name in the UI."""
        return "belongs_to_release"

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        """Keeps the candidates that exist in their release."""
        keys = context.candidate_subset.expensively_compute_partition_keys()
        kept = {key for key in keys if self._is_in_release(key)}
        return dg.AutomationResult(context, context.candidate_subset.compute_intersection_with_partition_keys(kept))

    def _is_in_release(self, key: str) -> bool:
        partition = to_partition(key)
        return partition.shard is None or int(partition.shard) < self._num_shards(partition.release)


def when_ready(num_shards: Callable[[str], int]) -> AC[dg.AssetKey]:
    """The condition of every asset.

    Args:
        num_shards: Number of shards of an open release.
    """
    # It looks at keys one by one, so it comes last: after what narrows millions of partitions down to a few.
    belongs = BelongsToRelease(num_shards)
    any_input_missing = AC.any_deps_match(AC.missing() & ~AC.will_be_requested() & belongs).with_label(
        "any_input_missing"
    )
    # `all_deps_blocking_checks_passed` asks whether ANY shard passed; this asks whether any did not. An input of the
    # same run is left to the run, whose blocking check stops the chain: so a shard's assets share one run.
    any_input_unchecked = AC.any_deps_match(
        ~AC.will_be_requested() & AC.any_checks_match(~AC.check_passed(), blocking_only=True) & belongs
    ).with_label("any_input_unchecked")
    input_repaired = AC.any_deps_match(
        (AC.newly_updated() & ~AC.executed_with_root_target()) | AC.will_be_requested()
    ).with_label("input_repaired")
    # Without Dagster's `initial_evaluation`: a release whose partition was added before the first tick counts too.
    handled = (AC.newly_requested() | AC.newly_updated()).with_label("handled")
    due = (AC.missing().newly_true() | input_repaired).since(handled).with_label("due")
    return (AC.missing() & due & belongs & ~any_input_missing & ~any_input_unchecked & ~AC.in_progress()).with_label(
        "when_ready"
    )


def automation_sensor() -> dg.AutomationConditionSensorDefinition:
    """Evaluates the conditions in the code server, which alone knows ``BelongsToRelease``.

    One run per partition instead of one backfill: its checks then block inside the run, and an on-call engineer
    finds and repeats the run of a partition.
    """
    return dg.AutomationConditionSensorDefinition(
        SENSOR_NAME,
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=TICK_INTERVAL_S,
        use_user_code_server=True,
        emit_backfills=False,
        description="Materializes every partition once its inputs exist and passed their checks.",
    )
