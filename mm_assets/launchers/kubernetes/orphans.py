"""Which stage pods are orphaned: their run has ended. Pure: the wiring lists pods, asks about runs and deletes."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mm_assets.launchers.kubernetes.pod_spec import COMPONENT, LABEL_COMPONENT, LABEL_RUN

#: Selects every stage pod of every run.
SELECTOR = f"{LABEL_COMPONENT}={COMPONENT}"


def orphaned_pods(pods: Iterable[Mapping[str, Any]], is_finished: Callable[[str], bool]) -> list[str]:
    """Names of the pods whose run has ended or is unknown, sorted.

    Args:
        pods: Stage pods as the API's JSON.
        is_finished: Whether the run of that id has ended or does not exist.
    """
    known: dict[str, bool] = {}
    orphaned: list[str] = []
    for pod in pods:
        metadata = pod["metadata"]
        run_id = (metadata.get("labels") or {}).get(LABEL_RUN)
        if run_id is None or metadata.get("deletionTimestamp"):
            continue
        if run_id not in known:
            known[run_id] = is_finished(run_id)
        if known[run_id]:
            orphaned.append(metadata["name"])
    return sorted(orphaned)
