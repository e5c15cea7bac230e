"""Suites as files: what they find, and how a mistake in one is reported."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

from mm_assets.checks.expectations import dead_letter_finding, run_suite
from mm_assets.checks.suite import read_suite
from mm_assets.errors import SettingsError

TABLE = pa.table(
    {
        "id": [f"s{n:02d}" for n in range(40)],
        "seconds": [float(n) for n in range(40)],
        "language": ["en"] * 38 + [None, "xx"],
        "nothing": pa.nulls(40, pa.float64()),
    }
)


def suite(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "suite.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def one(tmp_path: Path, entry: str) -> Path:
    lines = entry.strip().splitlines()
    return suite(tmp_path, "expectations:\n  - " + "\n    ".join(line.strip() for line in lines) + "\n")


def test_failing_rows_are_named_by_id(tmp_path: Path) -> None:
    path = one(tmp_path, "type: expect_column_values_to_be_in_set\ncolumn: language\nvalue_set: [en, de]")
    (finding,) = run_suite(TABLE, path)
    assert not finding.passed
    assert finding.failing_ids == ("s39",)
    assert finding.num_failing == 1
    assert finding.rule == "expect_column_values_to_be_in_set(language)"
    assert "xx" in finding.detail


def test_failing_ids_are_capped_and_counted(tmp_path: Path) -> None:
    path = one(tmp_path, "type: expect_column_values_to_be_between\ncolumn: seconds\nmax_value: 4")
    (finding,) = run_suite(TABLE, path)
    assert finding.num_failing == 35
    assert len(finding.failing_ids) == 20


def test_mostly_tolerates_a_fraction(tmp_path: Path) -> None:
    path = one(tmp_path, "type: expect_column_values_to_be_between\ncolumn: seconds\nmax_value: 38\nmostly: 0.9")
    assert run_suite(TABLE, path)[0].passed


def test_a_warning_is_reported_and_does_not_fail(tmp_path: Path) -> None:
    path = one(tmp_path, "type: expect_column_values_to_not_be_null\ncolumn: language\nseverity: warning")
    (finding,) = run_suite(TABLE, path)
    assert finding.passed
    assert finding.detail.startswith("warning: ")
    assert finding.failing_ids == ("s38",)


def test_a_regular_expression_may_have_groups(tmp_path: Path) -> None:
    path = one(tmp_path, "type: expect_column_values_to_match_regex\ncolumn: language\nregex: ^(e)(n)$\nmostly: 0.9")
    assert run_suite(TABLE, path)[0].passed


def test_an_expectation_that_raises_counts_as_failed(tmp_path: Path) -> None:
    path = one(tmp_path, "type: expect_column_values_to_be_between\ncolumn: language\nmin_value: 3")
    (finding,) = run_suite(TABLE, path)
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
def test_an_empty_table_holds_what_is_said_about_its_rows(tmp_path: Path, entry: str) -> None:
    assert run_suite(TABLE.slice(0, 0), one(tmp_path, entry))[0].passed


def test_an_empty_table_fails_what_is_said_about_their_number(tmp_path: Path) -> None:
    path = one(tmp_path, "type: expect_table_row_count_to_be_between\nmin_value: 1")
    assert not run_suite(TABLE.slice(0, 0), path)[0].passed


def test_a_column_without_values_has_no_wrong_mean(tmp_path: Path) -> None:
    path = one(tmp_path, "type: expect_column_mean_to_be_between\ncolumn: nothing\nmin_value: 5")
    assert run_suite(TABLE, path)[0].passed


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("type: expect_column_values_to_be_betwen\ncolumn: id", "expected expect_column_values_to_be_between"),
        ("type: expect_column_values_to_be_unique\ncolumn: secnds", "column secnds is unknown: expected seconds"),
        ("type: expect_column_values_to_be_between\ncolumn: seconds\nmin: 3", "min: extra fields not permitted"),
        ("column: seconds", "expected `type: expect_...` and its arguments"),
    ],
)  # fmt: skip
def test_a_mistake_in_an_entry_names_file_line_and_entry(tmp_path: Path, entry: str, message: str) -> None:
    path = one(tmp_path, entry)
    with pytest.raises(SettingsError) as caught:
        run_suite(TABLE, path)
    assert str(caught.value).startswith(f"{path}: line 2: expectation 1: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("expectation: []\n", "line 1: expectation is unknown"),
        ("expectations: [\n", "is not valid YAML"),
        ("expectations: 3\n", "expectations must be a list"),
        ("- a\n", "is not a suite"),
        ("max_dead_letter_fraction: 5\n", "expected 0 to 1, got 5"),
        ("expectations: []\nexpectations: []\n", "line 2: expectations is given twice"),
        ("expectations: !!python/object:os.system x\n", "is not valid YAML"),
    ],
)
def test_a_mistake_in_a_suite_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = suite(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        read_suite(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_the_dead_letter_budget_is_a_fraction_of_the_samples(tmp_path: Path) -> None:
    path = suite(tmp_path, "max_dead_letter_fraction: 0.1\n")
    assert dead_letter_finding(10, 100, path).passed
    assert not dead_letter_finding(11, 100, path).passed
    assert dead_letter_finding(0, 0, path).passed


def test_a_suite_without_a_budget_allows_no_dead_letter(tmp_path: Path) -> None:
    path = suite(tmp_path, "expectations: []\n")
    assert not dead_letter_finding(1, 1000, path).passed
    assert dead_letter_finding(0, 1000, path).passed


def test_a_suite_run_leaves_no_files_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = one(tmp_path, "type: expect_column_values_to_be_unique\ncolumn: id")
    run_suite(TABLE, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["suite.yaml"]
