"""A table is checked in parts with the outcome that it has as a whole."""

import dataclasses

import pyarrow as pa
import pytest

from mm_assets.checks import expectations, parts
from mm_assets.checks.expectations import run_suite
from mm_assets.checks.suite import Entry, Suite

NAMES = [None if i % 7 == 3 else ("cat", "dog", "Owl", "", "a rather long name")[i % 5] for i in range(40)]
TABLE = pa.table(
    {
        "id": [f"s{i:02d}" for i in range(40)],
        "name": NAMES,
        "number": pa.array([None if i % 11 == 2 else i for i in range(40)], pa.int32()),
        "share": [float("nan") if i == 5 else i / 40 for i in range(40)],
        "twice": [f"t{i % 37}" for i in range(40)],
        "none": pa.nulls(40, pa.string()),
    }
)
ARGUMENTS = {
    "value_lengths_to_be_between": {"min_value": 1, "max_value": 5},
    "value_lengths_to_equal": {"value": 3},
    "values_to_be_between": {"column": "number", "min_value": 2, "max_value": 30},
    "values_to_be_in_set": {"value_set": ["cat", "dog", ""]},
    "values_to_be_null": {},
    "values_to_match_regex": {"regex": "^[a-z]"},
    "values_to_match_regex_list": {"regex_list": ["^c", "^d"]},
    "values_to_not_be_in_set": {"value_set": ["Owl"]},
    "values_to_not_be_null": {},
    "values_to_not_match_regex": {"regex": " "},
    "values_to_not_match_regex_list": {"regex_list": [" ", "O"]},
}
CASES = [
    *((f"expect_column_{name}", {"column": "name", **arguments}) for name, arguments in ARGUMENTS.items()),
    ("expect_column_values_to_be_between", {"column": "share", "min_value": 0.1}),
    ("expect_column_values_to_be_in_set", {"column": "none", "value_set": ["a"]}),
    ("expect_column_values_to_not_be_null", {"column": "none"}),
    ("expect_column_values_to_be_unique", {"column": "id"}),
    ("expect_column_values_to_be_unique", {"column": "twice"}),
    ("expect_column_values_to_be_unique", {"column": "name"}),
    ("expect_column_values_to_be_unique", {"column": "none"}),
    ("expect_column_values_to_match_regex", {"column": "number", "regex": "^1"}),
]


@pytest.mark.parametrize("mostly", [1.0, 0.5])
def test_parts_have_the_outcome_of_the_whole(monkeypatch, mostly):
    entries = tuple(
        Entry(kind=kind, arguments={**arguments, "mostly": mostly}, where="suite") for kind, arguments in CASES
    )
    suite = Suite(where="suite", entries=entries, max_dead_letter_fraction=0.1)
    whole = run_suite(TABLE, suite)
    for module in (parts, expectations):
        monkeypatch.setattr(module, "PART_ROWS", 20)
    assert [_comparable(one) for one in run_suite(TABLE, suite)] == [_comparable(one) for one in whole]
    assert {one.passed for one in whole} == {True, False}


def _comparable(finding):
    # A part words its own error as the whole does, but for numbers of rows.
    raised = "could not be evaluated" in finding.detail
    return dataclasses.replace(finding, detail=raised) if raised else finding


def test_equal_numbers_are_found_in_a_part_with_a_missing_one_and_one_without(monkeypatch):
    codes = pa.array([None if i == 30 else 3 if i == 25 else i for i in range(40)], pa.int64())
    entry = Entry(kind="expect_column_values_to_be_unique", arguments={"column": "code"}, where="suite")
    for module in (parts, expectations):
        monkeypatch.setattr(module, "PART_ROWS", 20)
    table = pa.table({"id": TABLE["id"], "code": codes})
    (finding,) = run_suite(table, Suite(where="suite", entries=(entry,), max_dead_letter_fraction=0.1))
    assert (finding.passed, finding.failing_ids) == (False, ("s03", "s25"))


def test_every_divisible_expectation_exists():
    from great_expectations.expectations.registry import list_registered_expectation_implementations

    assert {*parts.BY_VALUE, parts.UNIQUE} <= set(list_registered_expectation_implementations())
