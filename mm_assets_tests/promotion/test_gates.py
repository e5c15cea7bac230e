"""Gates: golden decisions, the worst case decides, and what was not measured is not judged."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mm_assets.evaluation.report import Report
from mm_assets.identity.canonical import digest_json
from mm_assets.promotion.config import Thresholds
from mm_assets.promotion.decide import decide
from mm_assets.promotion.gates import judge

DIGESTS = {name: digest_json(name) for name in ("model", "dataset_release", "evaluation")}

#: What is unusual about a report -> the gates that fail.
GOLDEN = [
    ({}, set[str]()),
    ({"overall": 0.34}, {"overall_balanced_accuracy"}),
    ({"overall": 0.35, "damaged": 0.3}, set[str]()),
    ({"worst_slice": 0.1}, {"worst_slice_balanced_accuracy"}),
    ({"worst_slice": 0.1, "slice_count": 29}, set[str]()),
    ({"ece_after": 0.4}, {"calibration_error"}),
    ({"ece": 0.4, "ece_after": None}, {"calibration_error"}),
    ({"ece": 0.4, "ece_after": 0.1}, set[str]()),
    ({"damaged": 0.1}, {"worst_corruption_drop"}),
    ({"num_labelled": 20, "slice_count": 10}, {"evidence"}),
    ({"recall": 0.0}, set[str]()),
    ({"num_labelled": 0}, set[str]()),
    ({"num_labelled": 0, "recall": 0.06}, {"retrieval_lift"}),
    ({"num_labelled": 0, "pool": 10}, {"evidence"}),
]


@pytest.mark.parametrize(("unusual", "failed"), GOLDEN)
def test_golden_decisions(
    report_of: Callable[..., Report], thresholds: Thresholds, unusual: dict[str, float], failed: set[str]
) -> None:
    decision = decide(report_of(**unusual), thresholds, DIGESTS)
    assert {gate.name for gate in decision.failed} == failed
    assert (decision.decision, decision.state) == (("rejected", "none") if failed else ("promoted", "production"))


def test_every_gate_is_in_the_decision_in_a_fixed_order(
    report_of: Callable[..., Report], thresholds: Thresholds
) -> None:
    assert [gate.name for gate in judge(report_of(), thresholds)] == [
        "evidence",
        "overall_balanced_accuracy",
        "worst_slice_balanced_accuracy",
        "calibration_error",
        "worst_corruption_drop",
        "retrieval_lift",
    ]


def test_a_failed_gate_says_where_and_by_how_much(report_of: Callable[..., Report], thresholds: Thresholds) -> None:
    (gate,) = (gate for gate in judge(report_of(worst_slice=0.1), thresholds) if not gate.passed)
    assert gate.reason == "0.100 on the worst of 2 slices: language ja, 80 labelled samples, at least 0.2 needed"
    assert (gate.value, gate.threshold) == (0.1, 0.2)


def test_what_was_not_measured_is_not_judged_and_says_why(
    report_of: Callable[..., Report], thresholds: Thresholds
) -> None:
    gates = {gate.name: gate for gate in judge(report_of(num_labelled=0), thresholds)}
    overall = gates["overall_balanced_accuracy"]
    assert (overall.passed, overall.value) == (True, None)
    assert overall.reason == "does not apply: no sample is labelled"
    assert gates["retrieval_lift"].value == pytest.approx(0.6 / 0.05)


def test_nothing_measured_at_all_is_rejected(report_of: Callable[..., Report], thresholds: Thresholds) -> None:
    nothing = report_of(num_labelled=0).model_copy(update={"retrieval": {}, "num_samples": 0, "slices": []})
    decision = decide(nothing, thresholds, DIGESTS)
    assert [gate.name for gate in decision.failed] == ["evidence"]


def test_a_candidate_is_all_that_was_asked_for(report_of: Callable[..., Report], thresholds: Thresholds) -> None:
    careful = thresholds.model_copy(update={"promote_to": "candidate"})
    assert decide(report_of(), careful, DIGESTS).state == "candidate"
    assert decide(report_of(overall=0.1), careful, DIGESTS).state == "none"


@pytest.mark.property
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.2))
def test_a_better_report_never_turns_a_promotion_into_a_rejection(
    report_of: Callable[..., Report],
    thresholds: Thresholds,
    overall: float,
    worst: float,
    ece: float,
    damaged: float,
    better: float,
) -> None:
    report = report_of(overall=overall, worst_slice=worst, ece_after=ece, damaged=min(damaged, overall))
    improved = report_of(
        overall=overall,
        worst_slice=worst + better,
        ece_after=max(0.0, ece - better),
        damaged=min(damaged + better, overall),
    )
    if decide(report, thresholds, DIGESTS).decision == "promoted":
        assert decide(improved, thresholds, DIGESTS).decision == "promoted"
