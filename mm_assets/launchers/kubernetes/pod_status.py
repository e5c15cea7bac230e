"""What a pod's status means for the stage in it: a pure function from the API's JSON to one sentence.

The API says the same thing in several places, and not always all of them: an evicted pod may have no container
status at all, an evicted container looks like one that was killed for memory. The most specific cause wins.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mm_assets.launchers.resources import Resources

#: The container cannot start however long one waits.
HOPELESS_WAITS = frozenset({"InvalidImageName", "ErrImageNeverPull", "RunContainerError", "CreateContainerError"})
PULL_WAITS = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError"})
#: A registry may hiccup; a pull that fails this long will not recover by itself.
PULL_GRACE_S = 60.0
#: After its own deadline the cluster has to end the pod; if it cannot, its node is gone.
OVERDUE_GRACE_S = 120.0
SIGKILL_EXIT = 137
Status = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """How a pod ended, or why it never will. ``code`` is a stable word for dashboards, ``sentence`` for people."""

    code: str
    sentence: str

    @property
    def is_success(self) -> bool:
        """Whether the stage's process ended with exit status 0."""
        return self.code == "succeeded"


@dataclass(frozen=True, kw_only=True, slots=True)
class Waited:
    """Seconds since the pod was created, since its wait last changed its reason, and since its container runs."""

    created_s: float
    stuck_s: float
    running_s: float


def waiting_reason(pod: Status) -> str:
    """Why the container is not running yet; empty once it is."""
    status = pod.get("status") or {}
    state = _container_state(status)
    if "running" in state or "terminated" in state:
        return ""
    if "waiting" in state:
        return str(state["waiting"].get("reason") or "Waiting")
    unscheduled = _condition(status, "PodScheduled", "False")
    return str(unscheduled.get("reason") or "Pending") if unscheduled else "Pending"


def judge(pod: Status | None, resources: Resources, waited: Waited) -> Verdict | None:
    """The verdict over a pod as the API shows it now, or None while it may still succeed.

    Args:
        pod: The pod as JSON, None if the API does not know it any more.
        resources: What was asked for it, with its deadlines.
        waited: How long it is taking.
    """
    if pod is None:
        return Verdict(code="deleted", sentence="its pod disappeared: it was deleted or its node was removed")
    status = pod.get("status") or {}
    return _lost(status) or _ended(status, resources) or _not_starting(pod, resources, waited) or _overdue(
        resources, waited
    )  # fmt: skip


def _lost(status: Status) -> Verdict | None:
    """The cluster took the pod away, whatever its containers say."""
    reason, message = str(status.get("reason") or ""), _clause(status.get("message"))
    if reason == "DeadlineExceeded":
        return Verdict(code="deadline", sentence=f"its pod ran past its deadline{message}")
    if reason == "Evicted":
        return Verdict(code="evicted", sentence=f"its pod was evicted{message}")
    disrupted = _condition(status, "DisruptionTarget", "True")
    if disrupted and status.get("phase") == "Failed":
        why = disrupted.get("reason") or "DisruptionTarget"
        return Verdict(code="evicted", sentence=f"its pod was evicted: {why}{_clause(disrupted.get('message'))}")
    if status.get("phase") == "Failed" and not _container_state(status):
        return Verdict(code="failed", sentence=f"its pod failed: {reason or 'no reason given'}{message}")
    return None


def _ended(status: Status, resources: Resources) -> Verdict | None:
    """The container ended by itself, or the kernel ended it."""
    ended = _container_state(status).get("terminated")
    if ended is None:
        if status.get("phase") == "Succeeded":
            return Verdict(code="failed", sentence="its pod ended without telling how: it has no container status")
        return None
    code, reason = int(ended.get("exitCode", -1)), str(ended.get("reason") or "")
    if code == 0:
        return Verdict(code="succeeded", sentence="succeeded")
    if reason == "OOMKilled":
        return Verdict(
            code="out_of_memory",
            sentence=f"its container was killed for memory (OOMKilled): its limit is {resources.memory_bytes} bytes. "
            "Raise its memory_bytes in resources.yaml",
        )
    killed = " (killed from outside)" if code == SIGKILL_EXIT else ""
    return Verdict(code="exit", sentence=f"its container ended with exit status {code}{killed}")


def _not_starting(pod: Status, resources: Resources, waited: Waited) -> Verdict | None:
    reason = waiting_reason(pod)
    if not reason:
        return None
    status = pod.get("status") or {}
    state = _container_state(status)
    detail = _clause(state.get("waiting", {}).get("message"))
    if reason in HOPELESS_WAITS:
        return Verdict(code="cannot_start", sentence=f"its container cannot start: {reason}{detail}")
    is_late = waited.created_s > resources.launch_deadline_s
    if reason in PULL_WAITS and (is_late or waited.stuck_s > PULL_GRACE_S):
        return Verdict(code="image_pull", sentence=f"its image cannot be pulled: {reason}{detail}")
    if not is_late:
        return None
    if reason == "Unschedulable":
        detail = _clause((_condition(status, "PodScheduled", "False") or {}).get("message"))
        code = "unschedulable"
    else:
        code = "launch_deadline"
    return Verdict(
        code=code,
        sentence=f"its pod did not start within {resources.launch_deadline_s:g} s: {reason}{detail}",
    )


def _overdue(resources: Resources, waited: Waited) -> Verdict | None:
    if waited.running_s <= resources.max_runtime_s + OVERDUE_GRACE_S:
        return None
    return Verdict(
        code="deadline",
        sentence=f"its pod still runs {waited.running_s:.0f} s after its start: expected at most "
        f"{resources.max_runtime_s} s; its node does not answer",
    )


def _container_state(status: Status) -> Mapping[str, Any]:
    containers = status.get("containerStatuses") or []
    state = containers[0].get("state") if containers else None
    return {name: value for name, value in (state or {}).items() if value is not None}


def _condition(status: Status, kind: str, value: str) -> Mapping[str, Any] | None:
    for condition in status.get("conditions") or []:
        if condition.get("type") == kind and condition.get("status") == value:
            return condition
    return None


def _clause(message: object) -> str:
    text = " ".join(str(message or "").split()).rstrip(".")
    return f": {text}" if text else ""
