from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_assets.launchers.kubernetes.pod_status import (
    OVERDUE_GRACE_S,
    PULL_GRACE_S,
    Verdict,
    Waited,
    judge,
    waiting_reason,
)
from mm_assets.launchers.resources import Resources

RESOURCES = Resources(launch_deadline_s=600, max_runtime_s=1000, memory_bytes=123456)
EARLY = Waited(created_s=1, stuck_s=1, running_s=0)
LATE = Waited(created_s=601, stuck_s=1, running_s=0)


def _pod(phase: str, *, state: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    statuses = {"containerStatuses": [{"name": "stage", "state": state}]} if state is not None else {}
    return {"metadata": {"name": "x"}, "status": {"phase": phase, **statuses, **status}}


def _waiting(reason: str, message: str = "") -> dict[str, Any]:
    return _pod("Pending", state={"waiting": {"reason": reason, "message": message}})


def _ended(code: int, reason: str) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason}}


UNSCHEDULABLE = _pod(
    "Pending",
    conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no gpu"}],
)


def _verdict(pod: dict[str, Any] | None, waited: Waited = EARLY) -> Verdict:
    verdict = judge(pod, RESOURCES, waited)
    assert verdict is not None
    return verdict


def test_a_container_that_ended_with_0_succeeded() -> None:
    assert _verdict(_pod("Succeeded", state=_ended(0, "Completed"))).is_success


def test_success_without_any_container_status_is_not_believed() -> None:
    assert not _verdict(_pod("Succeeded")).is_success


@pytest.mark.parametrize("pod", [_waiting("ContainerCreating"), UNSCHEDULABLE, _pod("Pending"), {"metadata": {}}])
def test_a_pod_that_is_not_late_is_waited_for(pod: dict[str, Any]) -> None:
    assert judge(pod, RESOURCES, EARLY) is None


def test_an_unschedulable_pod_fails_at_the_launch_deadline_with_the_scheduler_s_words() -> None:
    verdict = _verdict(UNSCHEDULABLE, LATE)
    assert verdict.code == "unschedulable"
    assert verdict.sentence == "its pod did not start within 600 s: Unschedulable: 0/3 nodes: no gpu"


def test_a_container_stuck_in_creation_fails_at_the_launch_deadline() -> None:
    assert _verdict(_waiting("ContainerCreating"), LATE).code == "launch_deadline"


def test_an_image_that_cannot_be_pulled_gets_a_minute_but_never_more_than_the_launch_deadline() -> None:
    pod = _waiting("ImagePullBackOff", "Back-off pulling image r@sha256:0")
    assert judge(pod, RESOURCES, EARLY) is None
    verdict = _verdict(pod, Waited(created_s=90, stuck_s=PULL_GRACE_S + 1, running_s=0))
    assert (verdict.code, "Back-off pulling image r@sha256:0" in verdict.sentence) == ("image_pull", True)
    assert _verdict(pod, LATE).code == "image_pull"


def test_an_invalid_image_name_is_hopeless_at_once() -> None:
    assert _verdict(_waiting("InvalidImageName")).code == "cannot_start"


def test_memory_kill_names_the_limit() -> None:
    verdict = _verdict(_pod("Failed", state=_ended(137, "OOMKilled")))
    assert verdict.code == "out_of_memory"
    assert "123456 bytes" in verdict.sentence


@pytest.mark.parametrize("state", [None, _ended(137, "Error"), _ended(137, "OOMKilled")])
def test_eviction_wins_over_whatever_the_container_says_and_needs_no_container_status(
    state: dict[str, Any] | None,
) -> None:
    verdict = _verdict(_pod("Failed", state=state, reason="Evicted", message="The node was low on resource: memory."))
    assert verdict == Verdict(code="evicted", sentence="its pod was evicted: The node was low on resource: memory")


def test_preemption_is_an_eviction() -> None:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
    verdict = _verdict(_pod("Failed", state=_ended(143, "Error"), conditions=[condition]))
    assert (verdict.code, "PreemptionByScheduler" in verdict.sentence) == ("evicted", True)


def test_a_pod_that_refuses_admission_fails_with_its_reason() -> None:
    verdict = _verdict(_pod("Failed", reason="UnexpectedAdmissionError", message="Allocate failed"))
    assert verdict.sentence == "its pod failed: UnexpectedAdmissionError: Allocate failed"


def test_a_pod_that_disappeared_is_an_error() -> None:
    assert _verdict(None).code == "deleted"


def test_a_pod_whose_node_does_not_answer_is_given_up_after_its_deadline() -> None:
    pod = _pod("Running", state={"running": {}})
    running_s = RESOURCES.max_runtime_s + OVERDUE_GRACE_S
    assert judge(pod, RESOURCES, Waited(created_s=9999, stuck_s=9999, running_s=running_s)) is None
    assert _verdict(pod, Waited(created_s=9999, stuck_s=9999, running_s=running_s + 1)).code == "deadline"


def test_the_kubelet_s_own_deadline_is_named() -> None:
    assert _verdict(_pod("Failed", state=_ended(137, "Error"), reason="DeadlineExceeded")).code == "deadline"


def test_a_running_container_waits_for_nothing() -> None:
    assert waiting_reason(_pod("Running", state={"running": {}})) == ""
    assert waiting_reason(UNSCHEDULABLE) == "Unschedulable"


_REASONS = st.sampled_from([None, "Evicted", "DeadlineExceeded", "Shutdown"])
_STATES = st.one_of(
    st.none(),
    st.builds(lambda code: _ended(code, "Error"), st.integers(-1, 255)),
    st.just({"running": {}}),
    st.just({"waiting": {"reason": "ImagePullBackOff"}}),
    st.just({}),
)


@pytest.mark.property
@given(st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"]), _STATES, _REASONS)
def test_only_an_exit_status_of_0_is_ever_a_success_and_no_status_raises(
    phase: str, state: dict[str, Any] | None, reason: str | None
) -> None:
    verdict = judge(_pod(phase, state=state, reason=reason), RESOURCES, LATE)
    if verdict is not None and verdict.is_success:
        assert state is not None and state["terminated"]["exitCode"] == 0
        assert reason not in {"Evicted", "DeadlineExceeded"}
