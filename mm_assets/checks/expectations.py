"""Carries out suite files with Great Expectations.

Invariants: an expectation that raised counts as failed; nothing is written and nothing is sent anywhere; Great
Expectations takes seconds to import and is imported only when a suite runs.
"""

import difflib
import logging
import warnings
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from mm_assets.checks.parts import PART_ROWS, is_divisible, num_judged, parts_of
from mm_assets.checks.suite import COLUMN_ARGUMENTS, Entry, Off, Suite
from mm_assets.checks.validations import MAX_FAILING_IDS, Finding
from mm_assets.errors import SettingsError

if TYPE_CHECKING:
    import pandas as pd

#: Naming the failing rows costs about 20 us a row, so ids are looked for among this many rows where more fail.
MAX_ROWS_WITH_IDS = 50_000


def run_suite(table: pa.Table, suite: Suite) -> tuple[Finding, ...]:
    """One finding per expectation of the suite; failing rows are named by the table's ``id`` column if it has one.

    Entries with ``severity: warning`` or ``info`` are reported and never fail. On a table without rows, or for a
    column without values, an expectation about an aggregate (a mean, a maximum) holds. A suite that was switched off
    gives one finding with the reason.

    Raises:
        SettingsError: an entry names an unknown expectation, argument or column.
    """
    if isinstance(suite.entries, Off):
        return (Finding(rule="expectations", passed=True, detail=f"disabled: {suite.entries.reason}"),)
    built = [(entry, _build(entry, table)) for entry in suite.entries]
    return tuple(_evaluate(entry, expectation, table) for entry, expectation in built)


def dead_letter_findings(dead: Mapping[str, int], samples: Mapping[str, int], suite: Suite) -> tuple[Finding, ...]:
    """Whether rejected samples stay within the suite's budgets: one finding for all sources, one per source named.

    Args:
        dead: Rejected samples per source.
        samples: All samples per source, the rejected ones included.
        suite: Its ``source_budgets`` name the sources that are judged apart.
    """
    apart = suite.source_budgets
    rest = [sum(count for source, count in counts.items() if source not in apart) for counts in (dead, samples)]
    return (
        dead_letter_finding(rest[0], rest[1], suite),
        *(
            _budget_finding(f"max_dead_letter_fraction({source})", dead.get(source, 0), samples[source], allowed)
            for source, allowed in sorted(apart.items())
            if samples.get(source)
        ),
    )


def dead_letter_finding(num_dead: int, num_samples: int, suite: Suite) -> Finding:
    """Whether ``num_dead`` rejected of ``num_samples`` samples stay within the suite's ``max_dead_letter_fraction``."""
    return _budget_finding("max_dead_letter_fraction", num_dead, num_samples, suite.max_dead_letter_fraction)


def _budget_finding(rule: str, num_dead: int, num_samples: int, allowed: float | Off) -> Finding:
    fraction = num_dead / num_samples if num_samples else float(num_dead > 0)
    counted = f"{num_dead} of {num_samples} samples are dead letters ({fraction:.2%})"
    if isinstance(allowed, Off):
        passed, limit = True, f"disabled: {allowed.reason}"
    else:
        passed, limit = fraction <= allowed, f"{allowed:.2%} are allowed"
    source = rule.partition("(")[2].rstrip(")")
    about = f"source {source}: " if source else ""
    return Finding(rule=rule, passed=passed, detail=f"{about}{counted}; {limit}", num_failing=num_dead)


def _build(entry: Entry, table: pa.Table) -> Any:
    """The Great Expectations object of an entry, compared with the table's columns."""
    with _quiet():
        from great_expectations.exceptions.exceptions import ExpectationNotFoundError
        from great_expectations.expectations.registry import (
            get_expectation_impl,
            list_registered_expectation_implementations,
        )
    try:
        implementation = get_expectation_impl(entry.kind)
    except ExpectationNotFoundError as error:
        known = list_registered_expectation_implementations()
        raise SettingsError(f"{entry.where}: type {entry.kind} is unknown: {_suggestion(entry.kind, known)}") from error
    for column in entry.columns:
        if column not in table.column_names and entry.kind != "expect_column_to_exist":
            raise SettingsError(
                f"{entry.where}: {entry.kind}: column {column} is unknown: {_suggestion(column, table.column_names)}"
            )
    try:
        return implementation(**entry.arguments)
    except ValueError as error:
        raise SettingsError(f"{entry.where}: {entry.kind}: {_validation_message(error)}.") from error


def _suggestion(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"expected {close[0]}." if close else f"expected one of {', '.join(names)}."


def _validation_message(error: ValueError) -> str:
    details = getattr(error, "errors", None)
    if not callable(details):
        return str(error)
    found = cast("list[dict[str, Any]]", details())
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in found)


def _evaluate(entry: Entry, expectation: Any, table: pa.Table) -> Finding:
    if _is_vacuous(entry, expectation, table):
        return Finding(rule=entry.rule, passed=True, detail=f"{entry.rule}: no values to check")
    is_large = is_divisible(entry.kind) and table.num_rows > PART_ROWS
    outcome = _by_parts(entry, expectation, table) if is_large else _whole(expectation, table)
    if outcome.raised is not None:
        return Finding(rule=entry.rule, passed=False, detail=f"{entry.rule}: could not be evaluated: {outcome.raised}")
    passed = outcome.passed
    advisory = not passed and entry.is_advisory
    prefix = f"{entry.arguments['severity']}: " if advisory else ""
    return Finding(
        rule=entry.rule,
        passed=passed or advisory,
        detail=prefix + _detail(entry, outcome.shown, passed=passed, num_failing=outcome.num_failing),
        num_failing=0 if passed else outcome.num_failing,
        failing_ids=() if passed else outcome.failing_ids,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Outcome:
    """What Great Expectations says: ``raised`` is why it could not, ``shown`` its result with examples."""

    passed: bool = False
    raised: str | None = None
    num_failing: int = 0
    shown: dict[str, Any] = field(default_factory=dict[str, Any])
    failing_ids: tuple[str, ...] = ()


def _whole(expectation: Any, table: pa.Table, *, with_ids: bool | None = None) -> _Outcome:
    """The answer for a table; ids of failing rows are found where it fails, or as ``with_ids`` says."""
    frame = table.to_pandas()
    result = _validate(expectation, frame, {"result_format": "BASIC"})
    raised = _raised(result.exception_info)
    if raised is not None:
        return _Outcome(raised=raised)
    count = int(result.result.get("unexpected_count") or 0)
    is_asked = not result.success if with_ids is None else with_ids
    ids = _failing_ids(expectation, frame, count) if count and is_asked else ()
    return _Outcome(passed=bool(result.success), num_failing=count, shown=result.result, failing_ids=ids)


def _by_parts(entry: Entry, expectation: Any, table: pa.Table) -> _Outcome:
    """Of a divisible expectation: its failing rows in every part, and whether they are too many of all rows."""
    column = str(entry.arguments["column"])
    failing: list[_Outcome] = []
    num_ids = 0
    for part in parts_of(entry.kind, table, column):
        outcome = _whole(expectation, part, with_ids=num_ids < MAX_FAILING_IDS)
        if outcome.raised is not None:
            return outcome
        if outcome.num_failing:
            failing.append(outcome)
            num_ids += len(outcome.failing_ids)
    count = sum(outcome.num_failing for outcome in failing)
    asked = num_judged(entry.kind, table, column)
    examples = [value for outcome in failing for value in outcome.shown.get("partial_unexpected_list", [])]
    ids = [name for outcome in failing for name in outcome.failing_ids]
    return _Outcome(
        passed=not asked or (asked - count) / asked >= float(entry.arguments.get("mostly", 1.0)),
        num_failing=count,
        shown={"partial_unexpected_list": examples},
        failing_ids=tuple(ids[:MAX_FAILING_IDS]),
    )


def _detail(entry: Entry, result: dict[str, Any], *, passed: bool, num_failing: int) -> str:
    description = entry.arguments.get("description")
    text = f"{entry.rule}: {description}" if description else entry.rule
    if passed:
        return text
    if not num_failing:
        return f"{text}: expected {_limits(entry)}, got {result.get('observed_value')!s}"
    values = list(dict.fromkeys(str(value) for value in result.get("partial_unexpected_list", [])))[:3]
    return f"{text}: {num_failing} rows fail (expected {_limits(entry)}, got for example {', '.join(values)})"


def _limits(entry: Entry) -> str:
    shown = {
        name: value
        for name, value in entry.arguments.items()
        if name not in (*COLUMN_ARGUMENTS, "description", "severity", "notes", "meta")
    }
    return ", ".join(f"{name}={value}" for name, value in shown.items()) or entry.kind


def _is_vacuous(entry: Entry, expectation: Any, table: pa.Table) -> bool:
    from great_expectations.expectations.expectation import ColumnAggregateExpectation

    if not isinstance(expectation, ColumnAggregateExpectation) or not entry.columns:
        return False
    if table.num_rows == 0:
        return True
    column = table.column(entry.columns[0])
    counts_values = "unique" in entry.kind or "distinct" in entry.kind or "proportion" in entry.kind
    return column.null_count == len(column) and not counts_values


def _failing_ids(expectation: Any, frame: "pd.DataFrame", count: int) -> tuple[str, ...]:
    if "id" not in frame.columns:
        return ()
    rows = frame if count <= MAX_ROWS_WITH_IDS else frame.head(MAX_ROWS_WITH_IDS)
    wanted = {
        "result_format": "SUMMARY",
        "unexpected_index_column_names": ["id"],
        "partial_unexpected_count": MAX_FAILING_IDS,
        "return_unexpected_index_query": False,
    }
    found = _validate(expectation, rows, wanted).result.get("partial_unexpected_index_list") or []
    return tuple(sorted({str(item["id"]) for item in found}))[:MAX_FAILING_IDS]


def _validate(expectation: Any, frame: "pd.DataFrame", result_format: dict[str, Any]) -> Any:
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    with _quiet():
        # The default ephemeral context leaves a temporary folder for documentation behind.
        config = DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            progress_bars=ProgressBarsConfig(globally=False),
        )
        context: Any = gx.get_context(mode="ephemeral", project_config=config)
        asset = context.data_sources.add_pandas("table").add_dataframe_asset("table")
        batch = asset.add_batch_definition_whole_dataframe("rows").get_batch({"dataframe": frame})
        return batch.validate(expectation, result_format=result_format)


def _raised(info: dict[str, Any]) -> str | None:
    """The first exception an expectation met; Great Expectations nests them by metric."""
    for item in (info, *(value for value in info.values() if isinstance(value, dict))):
        if cast("dict[str, Any]", item).get("raised_exception"):
            return str(cast("dict[str, Any]", item).get("exception_message")).strip()
    return None


@contextmanager
def _quiet() -> Generator[None]:
    """Great Expectations logs every ephemeral context, and pandas warns of groups in a regular expression."""
    logger = logging.getLogger("great_expectations")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
