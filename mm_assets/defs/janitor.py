"""Removes orphaned stage pods: a run that was killed cannot delete its own.

A sensor rather than a scheduled job, because a run would need a pod of its own to delete one. Only deployments that
launch on Kubernetes have it.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from mm_assets.launchers.kubernetes.orphans import SELECTOR, orphaned_pods
from mm_assets.settings import Settings

logger = logging.getLogger(__name__)

INTERVAL_S = 300


def janitor_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The janitor where stages run in pods, else nothing."""
    if settings.launcher != "kubernetes":
        return []

    @dg.sensor(
        name="janitor",
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Deletes stage pods whose run has ended.",
    )
    def janitor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        swept = sweep_pods(context.instance, settings)
        return dg.SkipReason(f"Deleted {', '.join(swept)}." if swept else "No orphaned pods.")

    return [janitor]


def sweep_pods(instance: dg.DagsterInstance, settings: Settings, *, kubeconfig: Path | None = None) -> list[str]:
    """Deletes the stage pods of all finished runs and returns their names.

    Args:
        instance: Knows which runs are finished.
        settings: Name the namespace.
        kubeconfig: As in ``StageLauncher``.
    """
    # Imported here: the Kubernetes client takes a second to import, and one machine needs none.
    from mm_assets.launchers.kubernetes.client import connect, delete_pod, list_pods

    def is_finished(run_id: str) -> bool:
        run = instance.get_run_by_id(run_id)
        return run is None or run.is_finished

    api = connect(kubeconfig)
    pods: list[Mapping[str, Any]] = list_pods(api, settings.k8s_namespace, SELECTOR)
    names = orphaned_pods(pods, is_finished)
    for name in names:
        delete_pod(api, settings.k8s_namespace, name, warn=logger.warning)
    return names
