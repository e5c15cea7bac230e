"""``mm drop``: making, checking, pushing and registering a delivery of raw data."""

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from mm_assets.drops.check import DropReport, Problem, check_drop
from mm_assets.drops.create import create_drop, list_files, push_drop
from mm_assets.drops.register import register_drop
from mm_assets.errors import UsageError
from mm_assets.identity.canonical import Json
from mm_assets.operations.screen import Outcome, print_table, progress_bar
from mm_assets.settings import read_settings
from mm_assets.store.objects import open_store

MAX_SHOWN = 50


def create(args: argparse.Namespace, console: Console) -> Outcome:
    """Writes ``drop.json`` and checks what it describes; not ok only if the drop is unusable."""
    with progress_bar(console, "hashing files") as show:
        create_drop(
            args.folder,
            args.source,
            args.drop,
            index=args.index,
            open_remote=lambda: open_store(read_settings()),
            on_note=lambda note: console.print(f"Note: {note}.", markup=False),
            on_object=_counter(show, args.folder),
        )
    report = _check(args.folder, console)
    _print_problems(console, report)
    usable = not any(problem.is_fatal for problem in report.problems)
    if usable:
        console.print(f"Push it with `mm drop push {args.folder}`.", markup=False)
    return Outcome(result=_result(report), ok=usable)


def check(args: argparse.Namespace, console: Console) -> Outcome:
    """Explains every problem; not ok if there is any, even if it affects one sample only."""
    report = _check(args.folder, console)
    _print_problems(console, report)
    return Outcome(result=_result(report), ok=not report.problems)


def push(args: argparse.Namespace, console: Console) -> Outcome:
    """Checks the drop and uploads it unless it is unusable."""
    store = open_store(read_settings())
    report = _check(args.folder, console)
    if any(problem.is_fatal for problem in report.problems):
        _print_problems(console, report)
        console.print("Nothing was pushed.", style="red")
        return Outcome(result=_result(report), ok=False)
    _print_notes(console, report)
    with progress_bar(console, "pushing objects") as show:
        pushed = push_drop(store, args.folder, on_object=_counter(show, args.folder))
    name = f"{pushed.source}/{pushed.drop}"
    console.print(
        f"Drop {name}: {pushed.num_uploaded} of {pushed.num_objects} objects uploaded, {report.num_samples} samples, "
        f"{len(report.problems)} that will be dead letters.",
        markup=False,
    )
    console.print(f"Open a release with `mm release open --release NAME --drop {name}`.", markup=False)
    return Outcome(result=_result(report) | {"num_uploaded": pushed.num_uploaded})


def register(args: argparse.Namespace, console: Console) -> Outcome:
    """Records data that are in S3 already as a drop; not ok if they are unusable."""
    store = open_store(read_settings())
    with progress_bar(console, "hashing objects") as show:
        report = register_drop(
            store,
            args.uri,
            args.source,
            args.drop,
            index=args.index,
            description=args.description,
            on_object=_counted(show),
        )
    _print_problems(console, report)
    usable = not any(problem.is_fatal for problem in report.problems)
    if usable:
        name = f"{report.source}/{report.drop}"
        console.print(f"Registered as drop {name}; the data stay where they are.", markup=False)
        console.print(f"Open a release with `mm release open --release NAME --drop {name}`.", markup=False)
    else:
        console.print("Nothing was registered.", style="red")
    return Outcome(result=_result(report), ok=usable)


def _counted(show: Callable[[int, int | None], None]) -> Callable[[], None]:
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        show(done, None)

    return count


def _check(folder: Path, console: Console) -> DropReport:
    """Checks a drop.

    Raises:
        UsageError: there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: is not a folder. Name the folder that holds the drop's files.")
    with progress_bar(console, "reading samples") as show:
        return check_drop(folder, open_remote=lambda: open_store(read_settings()), on_object=_counter(show, folder))


def _counter(show: Callable[[int, int | None], None], folder: Path) -> Callable[[], None]:
    """Advances a bar by one object at each call."""
    total = sum(1 for _ in list_files(folder))
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        show(done, total)

    return count


def _print_notes(console: Console, report: DropReport) -> None:
    for problem in report.warnings:
        console.print(f"Note: {problem}.", markup=False)


def _print_problems(console: Console, report: DropReport) -> None:
    _print_notes(console, report)
    if report.problems:
        rows = [
            (_place(problem), "drop unusable" if problem.is_fatal else "dead letter", problem.message)
            for problem in report.problems[:MAX_SHOWN]
        ]
        more = f", the first {MAX_SHOWN}; --json has all" if len(report.problems) > MAX_SHOWN else ""
        print_table(console, f"Problems ({len(report.problems)}{more})", ("where", "cost", "what"), rows, left=3)
    console.print(f"{report.num_samples} samples, {len(report.problems)} problems.")


def _place(problem: Problem) -> str:
    if problem.line is not None:
        return f"{problem.file}:{problem.line}"
    return f"{problem.file} {problem.member}" if problem.member else problem.file


def _result(report: DropReport) -> dict[str, Json]:
    return {
        "source": report.source,
        "drop": report.drop,
        "num_samples": report.num_samples,
        "problems": [_problem_json(problem) for problem in report.problems],
        "warnings": [_problem_json(problem) for problem in report.warnings],
    }


def _problem_json(problem: Problem) -> dict[str, Json]:
    return {
        "file": problem.file,
        "line": problem.line,
        "member": problem.member,
        "message": problem.message,
        "fatal": problem.is_fatal,
    }
