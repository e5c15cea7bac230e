"""What a person sees in a terminal: one console, tables and progress bars.

With ``--json`` all of it goes to stderr, so that stdout carries the result alone.
"""

import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from mm_assets.identity.canonical import Json

#: Where the output is not a terminal (a CI log, a pipe) there is no width to ask for.
DEFAULT_WIDTH = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A command's result: the object ``--json`` prints, and whether the exit status is 0."""

    result: Mapping[str, Json]
    ok: bool = True


def make_console(*, to_stderr: bool) -> Console:
    """A console on stdout, or on stderr where stdout belongs to ``--json``.

    It writes to a duplicate of the descriptor, because Dagster points the original at its logs while a run executes.
    """
    stream = sys.stderr if to_stderr else sys.stdout
    try:
        own = os.fdopen(os.dup(stream.fileno()), "w", encoding="utf-8", buffering=1)
    except (OSError, ValueError):  # not backed by a descriptor, as under a test that captures output
        own = stream
    return Console(file=own, highlight=False, width=None if own.isatty() else DEFAULT_WIDTH)


def print_table(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, left: int = 1
) -> None:
    """Prints a table; the first ``left`` columns are aligned left, the others right. Cells are shown as they are."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    console.print(table)
    console.print()


@contextmanager
def progress_bar(console: Console, title: str) -> Generator[Callable[[int, int | None], None]]:
    """A progress bar; the yielded function sets the number done and the total. Nothing is drawn outside a terminal."""
    with make_progress(console) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def make_progress(console: Console) -> Progress:
    """A live display of tasks, one line each."""
    return Progress(
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description:<36}", markup=False),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def short_digest(digest: str) -> str:
    """The first twelve hex digits, enough to tell digests apart by eye."""
    return digest.removeprefix("sha256:")[:12]
