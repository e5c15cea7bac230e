from typing import Any

from mm_assets.launchers.kubernetes.orphans import orphaned_pods


def _pod(name: str, run_id: str | None, **metadata: Any) -> dict[str, Any]:
    labels = {"dagster/run-id": run_id} if run_id else {}
    return {"metadata": {"name": name, "labels": labels, **metadata}}


def test_only_pods_of_finished_runs_are_orphaned_and_each_run_is_asked_about_once() -> None:
    asked: list[str] = []

    def is_finished(run_id: str) -> bool:
        asked.append(run_id)
        return run_id == "done"

    pods = [_pod("b", "done"), _pod("a", "done"), _pod("c", "live"), _pod("d", None)]
    pods.append(_pod("e", "done", deletionTimestamp="2026-11-21T00:00:00Z"))
    assert orphaned_pods(pods, is_finished) == ["a", "b"]
    assert asked == ["done", "live"]
