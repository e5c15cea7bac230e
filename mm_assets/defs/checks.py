"""One blocking check per asset, partition by partition; what is checked is below, in each stage's ``validate``.

The outcome is also written to the store, where the next stage requires it: a manual run cannot do without.
"""

import dagster as dg

from mm_assets.defs.metadata import CHECK, check_metadata, failure_metadata, findings_sentence
from mm_assets.defs.partitions import partitions_of, to_partition
from mm_assets.errors import MmError, ObjectCorruptError, ObjectMissingError
from mm_assets.materialize import Workspace
from mm_assets.pipeline import Asset
from mm_assets.settings import Settings


def check_definition(asset: Asset, settings: Settings) -> dg.AssetChecksDefinition:
    """The check of ``asset``."""

    @dg.asset_check(
        asset=asset.name,
        name=CHECK,
        blocking=True,
        partitions_def=partitions_of(asset, settings),
        required_resource_keys={"workspace"},
        description=f"What {asset.name} wrote is sound. Later stages refuse a partition whose check has not passed.",
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        return evaluate_check(context, asset.name)

    return check


def evaluate_check(context: dg.AssetCheckExecutionContext, name: str) -> dg.AssetCheckResult:
    """Checks the context's partition and translates the record; a damaged output fails the check by its name.

    Raises:
        dg.Failure: the store was in the way; nothing was decided.
    """
    workspace: Workspace = context.op_execution_context.resources.workspace
    partition = to_partition(context.op_execution_context.partition_key)
    try:
        record = workspace.check(name, partition)
    except (ObjectCorruptError, ObjectMissingError) as error:
        return dg.AssetCheckResult(passed=False, description=str(error), metadata=failure_metadata(error))
    except MmError as error:
        raise dg.Failure(description=str(error), metadata=failure_metadata(error)) from error
    return dg.AssetCheckResult(
        passed=record.passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=findings_sentence(record),
        metadata=check_metadata(record),
    )
