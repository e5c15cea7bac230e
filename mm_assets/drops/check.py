"""Checking a local drop before it is pushed: every problem by file and line or member.

The files are read by the same code that a snapshot uses, so what passes here passes there, apart from decoding.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mm_assets.drops.create import list_files
from mm_assets.drops.fields import printable
from mm_assets.drops.index import IndexProblem, find_column_problems, read_index
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.record import DESCRIPTIVE_FILES, DROP_FILE, SOURCE_FILE, Drop, DropObject, parse_drop
from mm_assets.drops.rows import read_rows
from mm_assets.drops.samples import Contents, Rejection, Spool, VerifiedReader, unique_by_id
from mm_assets.drops.source import parse_source
from mm_assets.drops.tar import read_tar
from mm_assets.errors import DropError, MmError

MAX_COLUMN_PROBLEMS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One problem: where it is, and what it costs.

    ``is_fatal`` makes the drop unusable; otherwise one sample becomes a dead letter and the others go through.
    """

    file: str
    message: str
    line: int | None = None
    member: str | None = None
    is_fatal: bool = False

    def __str__(self) -> str:
        place = f":{self.line}" if self.line is not None else f" {self.member}" if self.member else ""
        return f"{self.file}{place}: {self.message}"


@dataclass(frozen=True, kw_only=True, slots=True)
class DropReport:
    """What a check found. ``num_samples`` are the ones that would enter a snapshot; ``warnings`` cost nothing."""

    source: str
    drop: str
    num_samples: int
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def check_drop(
    folder: Path, *, config: SnapshotConfig | None = None, on_object: Callable[[], None] = lambda: None
) -> DropReport:
    """Every problem of the drop in ``folder``, which ``create_drop`` has made.

    Args:
        folder: Holds ``drop.json`` and the objects.
        config: Ceilings; default: those of a release that states none.
        on_object: Called after each object, for a progress bar.
    """
    path = folder / DROP_FILE
    if not path.is_file():
        missing = Problem(file=DROP_FILE, message="is missing: run `mm drop create` first", is_fatal=True)
        return DropReport(source="", drop="", num_samples=0, problems=(missing,), warnings=())
    try:
        drop = parse_drop(path.read_bytes(), DROP_FILE)
    except DropError as error:
        broken = Problem(file=DROP_FILE, message=str(error).removeprefix(f"{DROP_FILE}: "), is_fatal=True)
        return DropReport(source="", drop="", num_samples=0, problems=(broken,), warnings=())
    problems, warnings = _check_source(folder, drop)
    warnings.extend(_stray_files(folder, drop))
    check = _check_index if drop.format == "index" else _check_tars
    num_samples, found = check(folder, drop, config or SnapshotConfig(), on_object)
    return DropReport(
        source=drop.source,
        drop=drop.drop,
        num_samples=num_samples,
        problems=tuple(problems + found),
        warnings=tuple(warnings),
    )


def _check_source(folder: Path, drop: Drop) -> tuple[list[Problem], list[Problem]]:
    path = folder / SOURCE_FILE
    if not path.is_file():
        return [Problem(file=SOURCE_FILE, message="is missing: run `mm drop create` to get one", is_fatal=True)], []
    try:
        source = parse_source(path.read_bytes(), SOURCE_FILE)
    except DropError as error:
        return [Problem(file=SOURCE_FILE, message=str(error).removeprefix(f"{SOURCE_FILE}: "), is_fatal=True)], []
    if source.source != drop.source:
        message = f"describes another source: expected {drop.source}, got {source.source}"
        return [Problem(file=SOURCE_FILE, message=message, is_fatal=True)], []
    if source.undeclared:
        return [], [Problem(file=SOURCE_FILE, message=f"declares nothing about {', '.join(source.undeclared)}")]
    return [], []


def _stray_files(folder: Path, drop: Drop) -> Iterator[Problem]:
    """One warning per kind of file that stays behind; loose texts that moved into the index are thousands."""
    declared = {entry.key for entry in drop.objects} | DESCRIPTIVE_FILES
    kinds: dict[str, list[str]] = {}
    for name in list_files(folder):
        if name not in declared:
            kinds.setdefault(Path(name).suffix, []).append(name)
    for names in kinds.values():
        more = f" ({len(names) - 1} more files of this type are not pushed either)" if len(names) > 1 else ""
        yield Problem(file=names[0], message=f"is not listed in drop.json, so it is not pushed{more}")


def _check_tars(
    folder: Path, drop: Drop, config: SnapshotConfig, on_object: Callable[[], None]
) -> tuple[int, list[Problem]]:
    problems: list[Problem] = []
    parts: list[tuple[Drop, Contents]] = []
    for entry in drop.objects:
        try:
            with Spool(None) as spool:
                reader = _open(folder, entry)
                if entry in drop.tars:
                    parts.append((drop, read_tar(reader, entry.key, config, spool)))
                else:
                    reader.finish()
        except MmError as error:
            problems.append(_fatal(entry.key, error))
        on_object()
    samples, rejected, _ = unique_by_id(iter(parts))
    return len(samples), problems + [_problem(rejection, drop) for _, rejection in rejected]


def _check_index(
    folder: Path, drop: Drop, config: SnapshotConfig, on_object: Callable[[], None]
) -> tuple[int, list[Problem]]:
    index = drop.index.key
    problems = [*_broken_objects(folder, drop, on_object)]
    if any(problem.file == index for problem in problems):
        return 0, problems
    try:
        columns = find_column_problems(folder / index, index, limit=MAX_COLUMN_PROBLEMS)
    except DropError as error:
        return 0, [*problems, _fatal(index, error)]
    problems.extend(_column_problem(index, found) for found in columns)
    if columns:
        return 0, problems
    broken = {problem.file for problem in problems}
    intact = drop.model_copy(update={"objects": [entry for entry in drop.objects if entry.key not in broken]})
    with Spool(None) as spool:
        contents = read_rows(
            read_index(folder / index, index), intact, lambda entry: _open(folder, entry), config, spool
        )
    return len(contents.samples), problems + [_problem(rejection, drop) for rejection in contents.rejections]


def _broken_objects(folder: Path, drop: Drop, on_object: Callable[[], None]) -> Iterator[Problem]:
    for entry in drop.objects:
        try:
            _open(folder, entry).finish()
        except MmError as error:
            yield _fatal(entry.key, error)
        on_object()


def _open(folder: Path, entry: DropObject) -> VerifiedReader:
    path = folder / entry.key
    if not path.is_file():
        raise DropError(
            f"{entry.key}: is missing from the folder: expected {entry.digest}. Restore it or create again."
        )
    return VerifiedReader(path.open("rb"), entry, entry.key)


def _fatal(file: str, error: MmError) -> Problem:
    return Problem(file=file, message=str(error).removeprefix(f"{file}: "), is_fatal=True)


def _column_problem(index: str, found: IndexProblem) -> Problem:
    return Problem(file=index, line=found.line, message=f"column {found.column}: {found.detail}", is_fatal=True)


def _problem(rejection: Rejection, drop: Drop) -> Problem:
    is_row = rejection.line is not None
    named = f"{rejection.object}: " if is_row and rejection.object != drop.index.key else ""
    return Problem(
        file=drop.index.key if is_row else rejection.object,
        line=rejection.line,
        member=None if rejection.member is None else printable(rejection.member),
        message=f"{named}{printable(rejection.detail)} ({rejection.reason})",
    )
