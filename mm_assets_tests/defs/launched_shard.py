"""One real shard that is ready for its embeddings, and a real run that makes them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from mm_assets.configurations import ReleaseRequest, open_named_release
from mm_assets.defs.build import build_definitions
from mm_assets.launchers.process import StageLauncher
from mm_assets.materialize import Workspace
from mm_assets.settings import Settings
from mm_assets.store.manifest import Partition
from mm_assets.store.objects import Store

SHARD = Partition(release="r1", shard="0000")


def prepare_shard(store: Store, settings: Settings, push_samples: Callable[[Store, str, str], Path]) -> Partition:
    """Commits the features of a shard and checks them, so that its embeddings can run."""
    push_samples(store, "shapes", "d1")
    workspace = Workspace(settings, store)
    open_named_release(workspace, ReleaseRequest(release=SHARD.release, drops=(("shapes", "d1"),)))
    for asset in ("snapshot", "features"):
        workspace.run(asset, SHARD, environment={})
        assert workspace.check(asset, SHARD).passed
    return SHARD


def materialize_embeddings(
    instance: dg.DagsterInstance,
    settings: Settings,
    launcher: StageLauncher | None = None,
    *,
    tags: Mapping[str, str] | None = None,
) -> dg.ExecuteInProcessResult:
    """A run of the shard's embeddings through the definitions that the UI loads."""
    instance.add_dynamic_partitions("releases", [SHARD.release])
    definitions = build_definitions(settings)
    resources: dict[str, Any] = {"launcher": launcher} if launcher else {}
    job = dg.Definitions(
        assets=definitions.assets,
        resources={**(definitions.resources or {}), **resources},
        executor=definitions.executor,
    ).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey("embeddings")],
        partition_key=dg.MultiPartitionKey({"release": SHARD.release, "shard": str(SHARD.shard)}),
        raise_on_error=False,
        tags=dict(tags or {}),
    )


def failure_sentence(result: dg.ExecuteInProcessResult) -> str:
    """What the run shows as its only failure."""
    failures = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    assert len(failures) == 1
    failure = failures[0].step_failure_data.user_failure_data
    assert failure is not None and failure.description
    return failure.description
