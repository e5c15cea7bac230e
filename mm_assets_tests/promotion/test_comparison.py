"""The comparison with the model in production: paired, deterministic, and honest about too little evidence."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mm_assets.promotion.comparison import compare_with_champion, paired_difference
from mm_assets.promotion.config import Disabled, Production

RULES = Production(confidence=0.95, min_samples=30, max_loss=0.0)
Predictions = Callable[..., pa.Table]


def relabelled(table: pa.Table, label: str) -> pa.Table:
    place = table.schema.get_field_index("label")
    return table.set_column(place, table.schema.field(place), pa.array([label] * len(table)))


def test_without_a_model_in_production_there_is_nothing_to_compare_with(predictions: Predictions) -> None:
    found = compare_with_champion(predictions(0.5), None, RULES)
    assert (found.outcome, found.reason, found.difference) == ("no_champion", "no model is in production", None)


def test_a_worse_model_is_worse(predictions: Predictions) -> None:
    found = compare_with_champion(predictions(0.3), predictions(0.6), RULES)
    assert found.outcome == "worse"
    assert found.num_shared == 200
    assert found.difference == pytest.approx(-0.3, abs=0.05)
    assert found.interval is not None
    assert found.interval[0] < found.difference < found.interval[1] < 0


def test_a_slightly_worse_model_is_within_its_interval() -> None:
    def table(wrong: set[int]) -> pa.Table:
        ids, labels = [f"s{number:04d}" for number in range(200)], ["a", "b"] * 100
        predicted = ["c" if number in wrong else label for number, label in enumerate(labels)]
        return pa.table({"id": ids, "label": labels, "predicted": predicted, "corruption": [""] * 200})

    found = compare_with_champion(table({7, *range(5, 200, 10)}), table(set(range(0, 200, 10))), RULES)
    assert found.difference == pytest.approx(-0.005)
    assert found.outcome == "not_worse"


def test_a_loss_that_the_rules_allow_is_not_worse(predictions: Predictions) -> None:
    tables = predictions(0.45), predictions(0.55)
    assert compare_with_champion(*tables, RULES).outcome == "worse"
    assert compare_with_champion(*tables, RULES.model_copy(update={"max_loss": 0.1})).outcome == "not_worse"


def test_a_better_model_and_an_equal_one_pass(predictions: Predictions) -> None:
    assert compare_with_champion(predictions(0.6), predictions(0.3), RULES).outcome == "not_worse"
    equal = compare_with_champion(predictions(0.5), predictions(0.5), RULES)
    assert (equal.outcome, equal.difference, equal.interval) == ("not_worse", 0.0, (0.0, 0.0))


def test_the_same_model_is_equal_however_few_samples_are_shared(predictions: Predictions) -> None:
    found = compare_with_champion(predictions(0.5), predictions(0.5, prefix="t"), RULES, is_same_model=True)
    assert (found.outcome, found.difference, found.interval) == ("same_model", 0.0, (0.0, 0.0))


def test_too_few_shared_samples_are_not_enough_evidence(predictions: Predictions) -> None:
    found = compare_with_champion(predictions(0.9), predictions(0.5, prefix="t"), RULES)
    assert (found.outcome, found.num_shared, found.difference) == ("not_enough_evidence", 0, None)
    few = compare_with_champion(predictions(0.9, num=29), predictions(0.5), RULES)
    assert "29 labelled samples are shared" in few.reason
    assert compare_with_champion(predictions(0.9, num=30), predictions(0.5), RULES).outcome == "not_worse"


def test_damaged_predictions_do_not_count(predictions: Predictions) -> None:
    table = predictions(1.0, num=30)
    assert len(table) == 31
    found = compare_with_champion(table, table, RULES)
    assert (found.num_shared, found.difference) == (30, 0.0)


def test_a_sample_whose_label_changed_is_left_out(predictions: Predictions) -> None:
    found = compare_with_champion(relabelled(predictions(0.9), "new"), predictions(0.5), RULES)
    assert (found.outcome, found.num_shared) == ("not_enough_evidence", 0)


def test_an_unlabelled_model_cannot_replace_one_that_was_judged_by_labels(predictions: Predictions) -> None:
    unlabelled = predictions(0.5, labelled=False)
    assert compare_with_champion(unlabelled, unlabelled, RULES).outcome == "not_applicable"
    assert compare_with_champion(unlabelled, predictions(0.5), RULES).outcome == "not_enough_evidence"


def test_switched_off_says_why(predictions: Predictions) -> None:
    found = compare_with_champion(predictions(0.1), predictions(0.9), Disabled(disabled="another task, ticket 7"))
    assert (found.outcome, found.reason) == ("disabled", "another task, ticket 7")


def test_the_order_of_rows_does_not_matter_and_the_interval_is_deterministic(predictions: Predictions) -> None:
    own, other = predictions(0.4), predictions(0.6)
    shuffled = own.take(pa.array(np.random.default_rng(1).permutation(len(own))))
    assert compare_with_champion(shuffled, other, RULES) == compare_with_champion(own, other, RULES)


def test_the_interval_is_the_one_of_resampled_samples() -> None:
    rng = np.random.default_rng(3)
    class_B = np.repeat(np.arange(4), [50, 40, 30, 20])
    gained_B = rng.choice([-1, 0, 1], size=len(class_B), p=[0.25, 0.6, 0.15])
    difference, (low, high) = paired_difference(gained_B, class_B, confidence=0.9)
    resampled = []
    for _ in range(4_000):
        means = [np.mean(rng.choice(gained_B[class_B == label], size=(class_B == label).sum())) for label in range(4)]
        resampled.append(np.mean(means))
    assert difference == pytest.approx(np.mean([gained_B[class_B == label].mean() for label in range(4)]), abs=1e-6)
    assert (low, high) == pytest.approx(tuple(np.quantile(resampled, [0.05, 0.95])), abs=0.01)


def test_balanced_accuracy_weighs_classes_and_not_samples() -> None:
    class_B = np.array([0] * 90 + [1] * 10)
    gained_B = np.array([0] * 90 + [-1] * 10)
    assert paired_difference(gained_B, class_B, confidence=0.95) == (-0.5, (-0.5, -0.5))


ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc"), st.sampled_from("abc")), min_size=1)


@pytest.mark.property
@hypothesis_settings(deadline=None)
@given(ROWS)
def test_swapping_candidate_and_champion_negates_the_difference(rows: list[tuple[str, str, str]]) -> None:
    ids = [f"s{number:04d}" for number in range(len(rows))]

    def table(column: int) -> pa.Table:
        columns = {"id": ids, "label": [row[0] for row in rows], "predicted": [row[column] for row in rows]}
        return pa.table(columns | {"corruption": [""] * len(rows)})

    rules = RULES.model_copy(update={"min_samples": 1})
    there = compare_with_champion(table(1), table(2), rules)
    back = compare_with_champion(table(2), table(1), rules)
    assert there.difference is not None
    assert back.difference == pytest.approx(-there.difference, abs=1e-9)
    assert (there.num_shared, back.num_shared) == (len(rows), len(rows))
    assert there.interval is not None
    assert -1 <= there.interval[0] <= there.interval[1] <= 1
    assert "worse" not in {there.outcome, back.outcome} or there.difference != 0
