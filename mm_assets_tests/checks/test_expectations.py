"""Suites as files: what they find, and how a mistake in one is reported."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

from mm_assets.checks.expectations import dead_letter_finding, run_suite
from mm_assets.checks.suite import Off, Suite, parse_suite
from mm_assets.errors import SettingsError
from mm_assets.settings import read_settings

TABLE = pa.table(
    {
        "id": [f"s{n:02d}" for n in range(40)],
        "seconds": [float(n) for n in range(40)],
        "language": ["en"] * 38 + [None, "xx"],
        "nothing": pa.nulls(40, pa.float64()),
    }
)


WHERE = "rules/suite.yaml"


def suite(text: str) -> Suite:
    return parse_suite(text.encode(), WHERE)


def one(entry: str) -> Suite:
    lines = entry.strip().splitlines()
    return suite("expectations:\n  - " + "\n    ".join(line.strip() for line in lines) + "\n")


def with_budget(budget: str) -> Suite:
    return suite(f"expectations: {{disabled: none needed}}\n{budget}")


def test_failing_rows_are_named_by_id() -> None:
    rules = one("type: expect_column_values_to_be_in_set\ncolumn: language\nvalue_set: [en, de]")
    (finding,) = run_suite(TABLE, rules)
    assert not finding.passed
    assert finding.failing_ids == ("s39",)
    assert finding.num_failing == 1
    assert finding.rule == "expect_column_values_to_be_in_set(language)"
    assert "xx" in finding.detail


def test_failing_ids_are_capped_and_counted() -> None:
    rules = one("type: expect_column_values_to_be_between\ncolumn: seconds\nmax_value: 4")
    (finding,) = run_suite(TABLE, rules)
    assert finding.num_failing == 35
    assert len(finding.failing_ids) == 20


def test_mostly_tolerates_a_fraction() -> None:
    rules = one("type: expect_column_values_to_be_between\ncolumn: seconds\nmax_value: 38\nmostly: 0.9")
    assert run_suite(TABLE, rules)[0].passed


def test_a_warning_is_reported_and_does_not_fail() -> None:
    rules = suite(
        "expectations:\n  - {type: expect_column_values_to_not_be_null, column: language, severity: warning}\n"
        f"  - {{{UNIQUE}}}\n"
    )
    finding, _ = run_suite(TABLE, rules)
    assert finding.passed
    assert finding.detail.startswith("warning: ")
    assert finding.failing_ids == ("s38",)


def test_a_regular_expression_may_have_groups() -> None:
    rules = one("type: expect_column_values_to_match_regex\ncolumn: language\nregex: ^(e)(n)$\nmostly: 0.9")
    assert run_suite(TABLE, rules)[0].passed


def test_an_expectation_that_raises_counts_as_failed() -> None:
    rules = one("type: expect_column_values_to_be_between\ncolumn: language\nmin_value: 3")
    (finding,) = run_suite(TABLE, rules)
    assert not finding.passed
    assert "could not be evaluated" in finding.detail


@pytest.mark.parametrize(
    "entry",
    [
        "type: expect_column_values_to_be_between\ncolumn: seconds\nmin_value: 5",
        "type: expect_column_mean_to_be_between\ncolumn: seconds\nmin_value: 5",
        "type: expect_column_values_to_be_unique\ncolumn: id",
        "type: expect_column_values_to_match_regex\ncolumn: language\nregex: ^en$",
    ],
)
def test_an_empty_table_holds_what_is_said_about_its_rows(entry: str) -> None:
    assert run_suite(TABLE.slice(0, 0), one(entry))[0].passed


def test_an_empty_table_fails_what_is_said_about_their_number() -> None:
    rules = one("type: expect_table_row_count_to_be_between\nmin_value: 1")
    assert not run_suite(TABLE.slice(0, 0), rules)[0].passed


def test_a_column_without_values_has_no_wrong_mean() -> None:
    rules = one("type: expect_column_mean_to_be_between\ncolumn: nothing\nmin_value: 5")
    assert run_suite(TABLE, rules)[0].passed


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("type: expect_column_values_to_be_betwen\ncolumn: id", "expected expect_column_values_to_be_between"),
        ("type: expect_column_values_to_be_unique\ncolumn: secnds", "column secnds is unknown: expected seconds"),
        ("type: expect_column_values_to_be_between\ncolumn: seconds\nmin: 3", "max_value or both, got column, min"),
        ("type: expect_column_values_to_be_unique\ncolumn: id\nmin: 3", "min: extra fields not permitted"),
        ("column: seconds", "expected `type: expect_...` and its arguments"),
    ],
)  # fmt: skip
def test_a_mistake_in_an_entry_names_file_line_and_entry(entry: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        run_suite(TABLE, one(entry))
    assert str(caught.value).startswith(f"{WHERE}: line 2: expectation 1: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("expectation: []\n", "line 1: expectation is unknown"),
        ("expectations: [\n", "is not valid YAML"),
        ("expectations: 3\n", "expectations must be a list"),
        ("- a\n", "is not a suite"),
        ("expectations: {disabled: x}\nmax_dead_letter_fraction: 5\n", "line 2: max_dead_letter_fraction is unusable"),
        ("expectations: []\nexpectations: []\n", "line 2: expectations is given twice"),
        ("expectations: !!python/object:os.system x\n", "is not valid YAML"),
    ],
)
def test_a_mistake_in_a_suite_names_the_file(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_suite(text.encode(), WHERE)
    assert WHERE in str(caught.value)
    assert message in str(caught.value)
    with pytest.raises(SettingsError, match="is not UTF-8: byte 0"):
        parse_suite(b"\xff" + text.encode(), WHERE)


UNIQUE = "type: expect_column_values_to_be_unique, column: id"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a suite"),
        ("{}\n", "line 1: expectations is missing: expected a list of expectations, or `disabled: REASON`"),
        ("max_dead_letter_fraction: 0.1\n", "line 1: expectations is missing"),
        ("expectations: []\n", "line 1: expectations is empty"),
        ("expectations:\n", "line 1: expectations is empty"),
        ("expectations: {}\n", "expectations is unusable: expected `disabled: REASON` alone"),
        ("expectations: {disabled: ''}\n", "line 1: expectations.disabled is unusable: expected the reason as text"),
        (
            "expectations: {disabled: true}\n",
            "expectations.disabled is unusable: expected the reason .* got True",
        ),
        ("expectations: {disabled: why, also: 1}\n", "expected `disabled: REASON` alone, got disabled, also"),
        (f"expectations:\n  - {{{UNIQUE}, mostly: 0}}\n", "line 2: expectation 1: .* mostly is unusable: .* got 0"),
        (f"expectations:\n  - {{{UNIQUE}, mostly: .nan}}\n", "mostly is unusable: .* got nan"),
        (f"expectations:\n  - {{{UNIQUE}, mostly: 0.1}}\n", "mostly is unusable: expected 0.5 to 1, got 0.1"),
        (f"expectations:\n  - {{{UNIQUE}, row_condition: id == 'a'}}\n", "row_condition is not allowed"),
        (f"expectations:\n  - {{{UNIQUE}, severity: info}}\n", "line 1: no expectation can fail: all 1 have severity"),
        (
            "expectations:\n  - {type: expect_column_values_to_be_between, column: seconds}\n",
            "has no limit: expected min_value, max_value or both",
        ),
        (
            "expectations:\n  - {type: expect_column_values_to_be_between, column: seconds, max_value: .inf}\n",
            "max_value is unusable: expected a finite number, got inf",
        ),
        (
            "expectations:\n  - {type: expect_column_values_to_not_be_in_set, column: id, value_set: []}\n",
            "value_set is empty: expected a value",
        ),
        (f"expectations:\n  - {{{UNIQUE}}}\nmax_dead_letter_fraction: 1\n", "line 3: .* expected 0 to 0.5, .* got 1"),
        (f"expectations:\n  - {{{UNIQUE}}}\nmax_dead_letter_fraction:\n", "line 3: .* got None"),
        (f"expectations:\n  - {{{UNIQUE}}}\nmax_dead_letter_fraction: .nan\n", "line 3: .* got nan"),
        ("expectations: &all\n  - *all\n", "is nested deeper than 32 levels"),
    ],
)
def test_a_suite_that_checks_nothing_is_an_error(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=f"{WHERE}: .*{message}"):
        suite(text)


def test_a_suite_whose_aliases_make_it_endless_is_an_error() -> None:
    levels = [f"- &l{n} [{', '.join([f'*l{n - 1}'] * 20)}]" for n in range(1, 9)]
    with pytest.raises(SettingsError, match="has more than 100000 entries"):
        suite("\n".join(["- &l0 [x]", *levels]) + "\n")


def test_expectations_are_switched_off_with_a_reason_that_is_reported() -> None:
    rules = suite("expectations:\n  disabled: the source is being relabelled, ticket 7\n")
    assert rules.entries == Off(reason="the source is being relabelled, ticket 7")
    (finding,) = run_suite(TABLE, rules)
    assert (finding.passed, finding.detail) == (True, "disabled: the source is being relabelled, ticket 7")


def test_the_dead_letter_budget_is_a_fraction_of_the_samples() -> None:
    rules = with_budget("max_dead_letter_fraction: 0.1\n")
    assert dead_letter_finding(10, 100, rules).passed
    assert not dead_letter_finding(11, 100, rules).passed
    assert dead_letter_finding(0, 0, rules).passed
    assert not dead_letter_finding(1, 0, rules).passed


def test_a_suite_without_a_budget_allows_no_dead_letter() -> None:
    rules = with_budget("")
    assert not dead_letter_finding(1, 1000, rules).passed
    assert dead_letter_finding(0, 1000, rules).passed


def test_a_budget_is_switched_off_with_a_reason_that_is_reported() -> None:
    rules = with_budget("max_dead_letter_fraction: {disabled: ticket 7}\n")
    finding = dead_letter_finding(90, 100, rules)
    assert finding.passed
    assert finding.detail == "90 of 100 samples are dead letters (90.00%); disabled: ticket 7"


@pytest.mark.parametrize("name", ["snapshot.yaml", "features.yaml"])
def test_the_packaged_suites_are_valid(name: str) -> None:
    rules = parse_suite(read_settings({}).config_file(name).read_bytes(), name)
    assert isinstance(rules.entries, tuple)
    assert any(not entry.is_advisory for entry in rules.entries)


def test_a_suite_run_leaves_no_files_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rules = one("type: expect_column_values_to_be_unique\ncolumn: id")
    run_suite(TABLE, rules)
    assert list(tmp_path.iterdir()) == []
