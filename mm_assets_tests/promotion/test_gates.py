"""Gates: golden decisions, the worst case decides, and what was not measured is not judged."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mm_assets.evaluation.report import Report
from mm_assets.identity.canonical import digest_json
from mm_assets.promotion.comparison import Comparison
from mm_assets.promotion.config import Disabled, Thresholds
from mm_assets.promotion.decide import decide as decide_with
from mm_assets.promotion.decision import Decision
from mm_assets.promotion.gates import Gate
from mm_assets.promotion.gates import judge as judge_with

DIGESTS = {name: digest_json(name) for name in ("model", "dataset_release", "evaluation")}

ALONE = Comparison(outcome="no_champion", reason="no model is in production")


def decide(report: Report, thresholds: Thresholds, comparison: Comparison = ALONE) -> Decision:
    return decide_with(report, thresholds, DIGESTS, comparison=comparison, champion=None)


def judge(report: Report, thresholds: Thresholds, comparison: Comparison = ALONE) -> dict[str, Gate]:
    return {gate.name: gate for gate in judge_with(report, thresholds, comparison)}


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
    (
        {"num_labelled": 20, "slice_count": 10},
        {"evidence", "worst_slice_balanced_accuracy", "worst_corruption_drop"},
    ),
    ({"recall": 0.0}, set[str]()),
    ({"num_labelled": 0}, set[str]()),
    ({"num_labelled": 0, "recall": 0.06}, {"retrieval_lift"}),
    ({"num_labelled": 0, "pool": 10}, {"evidence", "retrieval_lift"}),
]


@pytest.mark.parametrize(("unusual", "failed"), GOLDEN)
def test_golden_decisions(
    report_of: Callable[..., Report], thresholds: Thresholds, unusual: dict[str, float], failed: set[str]
) -> None:
    decision = decide(report_of(**unusual), thresholds)
    assert {gate.name for gate in decision.failed} == failed
    assert (decision.decision, decision.state) == (("rejected", "none") if failed else ("promoted", "production"))


def test_every_gate_is_in_the_decision_in_a_fixed_order(
    report_of: Callable[..., Report], thresholds: Thresholds
) -> None:
    assert list(judge(report_of(), thresholds)) == [
        "evidence",
        "overall_balanced_accuracy",
        "worst_slice_balanced_accuracy",
        "calibration_error",
        "worst_corruption_drop",
        "retrieval_lift",
        "production_difference",
    ]


def test_a_failed_gate_says_where_and_by_how_much(report_of: Callable[..., Report], thresholds: Thresholds) -> None:
    (gate,) = (gate for gate in judge(report_of(worst_slice=0.1), thresholds).values() if not gate.passed)
    assert gate.reason == "0.100 on the worst of 2 slices: language ja, 80 labelled samples, at least 0.2 needed"
    assert (gate.value, gate.threshold) == (0.1, 0.2)


def test_without_any_label_retrieval_is_judged_and_the_other_gates_do_not_apply(
    report_of: Callable[..., Report], thresholds: Thresholds
) -> None:
    gates = judge(report_of(num_labelled=0), thresholds)
    overall = gates["overall_balanced_accuracy"]
    assert (overall.outcome, overall.passed, overall.value) == ("not_applicable", True, None)
    assert overall.reason == "does not apply: no sample is labelled"
    assert gates["retrieval_lift"].value == pytest.approx(0.6 / 0.05)


def test_nothing_measured_at_all_is_rejected(report_of: Callable[..., Report], thresholds: Thresholds) -> None:
    nothing = report_of(num_labelled=0).model_copy(update={"retrieval": {}, "num_samples": 0, "slices": []})
    decision = decide(nothing, thresholds)
    assert [gate.name for gate in decision.failed] == ["evidence", "retrieval_lift"]


def test_a_model_with_classes_and_no_labelled_test_sample_is_rejected(
    report_of: Callable[..., Report], thresholds: Thresholds
) -> None:
    report = report_of(num_labelled=0).model_copy(update={"classes": ["a", "b"]})
    gates = judge(report, thresholds)
    assert gates["overall_balanced_accuracy"].reason == "nothing to judge: the test split has no labelled sample"
    failed = {name for name, gate in gates.items() if not gate.passed}
    assert failed == {
        "evidence", "overall_balanced_accuracy", "worst_slice_balanced_accuracy", "calibration_error",
        "worst_corruption_drop",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("section", "limits", "gate", "missing"),
    [
        ("slices", {"min_count": 500}, "worst_slice_balanced_accuracy", "no value of modalities, language has 500"),
        ("slices", {"names": ["label"]}, "worst_slice_balanced_accuracy", "no value of label has 30 labelled samples"),
        ("corruptions", {"min_count": 500}, "worst_corruption_drop", "no named corruption was measured on 500"),
        ("corruptions", {"max_severity": 2}, "worst_corruption_drop", "did not measure image_jpeg, image_blur"),
        ("corruptions", {"names": ["drop_image"]}, "worst_corruption_drop", "did not measure drop_image"),
        ("corruptions", {"names": ["image_blur", "drop_text"]}, "worst_corruption_drop", "did not measure drop_text"),
    ],
)
def test_a_gate_that_has_nothing_to_judge_fails_and_says_what_is_missing(
    report_of: Callable[..., Report],
    thresholds: Thresholds,
    section: str,
    limits: dict[str, object],
    gate: str,
    missing: str,
) -> None:
    changed = getattr(thresholds, section).model_copy(update=limits)
    found = judge(report_of(), thresholds.model_copy(update={section: changed}))[gate]
    assert (found.outcome, found.value) == ("failed", None)
    assert found.reason.startswith("nothing to judge: ")
    assert missing in found.reason


def test_a_corruption_of_a_modality_that_no_sample_has_does_not_apply(
    report_of: Callable[..., Report], thresholds: Thresholds
) -> None:
    changed = thresholds.corruptions.model_copy(update={"names": ["audio_noise"]})
    gate = judge(report_of(), thresholds.model_copy(update={"corruptions": changed}))["worst_corruption_drop"]
    assert (gate.outcome, gate.reason) == ("not_applicable", "does not apply: no sample has audio")


def test_a_model_that_guesses_is_rejected_by_any_threshold(
    report_of: Callable[..., Report], thresholds: Thresholds
) -> None:
    weak = thresholds.overall.model_copy(update={"min_balanced_accuracy": 0.001})
    gate = judge(report_of(overall=0.11), thresholds.model_copy(update={"overall": weak}))["overall_balanced_accuracy"]
    assert gate.outcome == "failed"
    assert gate.reason == "0.110 over 200 labelled samples is not better than guessing one of the classes, 0.111"


@pytest.mark.parametrize(
    ("section", "gate"),
    [
        ("evidence", "evidence"),
        ("overall", "overall_balanced_accuracy"),
        ("slices", "worst_slice_balanced_accuracy"),
        ("calibration", "calibration_error"),
        ("corruptions", "worst_corruption_drop"),
        ("production", "production_difference"),
    ],
)
def test_a_disabled_gate_is_in_the_decision_with_its_reason(
    report_of: Callable[..., Report], thresholds: Thresholds, section: str, gate: str
) -> None:
    off = thresholds.model_copy(update={section: Disabled(disabled="ticket 7")})
    bad = report_of(overall=0.1, worst_slice=0.0, ece_after=0.9, damaged=-0.5)
    worse = Comparison(outcome="worse", reason="worse", difference=-0.2, interval=(-0.3, -0.1), num_shared=100)
    decision = decide(bad, off, worse)
    (found,) = (entry for entry in decision.gates if entry.name == gate)
    assert (found.outcome, found.passed, found.threshold) == ("disabled", True, None)
    assert found.reason == "disabled: ticket 7"
    assert decision.decision == "rejected"


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("no_champion", "not_applicable"),
        ("not_applicable", "not_applicable"),
        ("same_model", "passed"),
        ("not_worse", "passed"),
        ("worse", "failed"),
        ("not_enough_evidence", "failed"),
    ],
)
def test_the_comparison_with_production_decides(
    report_of: Callable[..., Report], thresholds: Thresholds, outcome: str, expected: str
) -> None:
    comparison = Comparison(outcome=outcome, reason="why")  # pyright: ignore[reportArgumentType]
    assert judge(report_of(), thresholds, comparison)["production_difference"].outcome == expected
    decision = decide(report_of(), thresholds, comparison)
    assert decision.decision == ("rejected" if expected == "failed" else "promoted")
    assert decision.comparison is not None
    assert (decision.comparison.outcome, decision.comparison.reason) == (outcome, "why")


def test_a_candidate_is_all_that_was_asked_for(report_of: Callable[..., Report], thresholds: Thresholds) -> None:
    careful = thresholds.model_copy(update={"promote_to": "candidate"})
    assert decide(report_of(), careful).state == "candidate"
    assert decide(report_of(overall=0.1), careful).state == "none"


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
    if decide(report, thresholds).decision == "promoted":
        assert decide(improved, thresholds).decision == "promoted"
