"""Checking a local drop before it is pushed: every problem by file and line or member.

The files are read by the same code that a snapshot uses, so what passes here passes there, apart from decoding.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mm_assets.drops.collection import Collection, UnknownMembers
from mm_assets.drops.create import list_files
from mm_assets.drops.fields import printable
from mm_assets.drops.index import IndexProblem, find_column_problems, read_index
from mm_assets.drops.layout import lay_out
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.record import DESCRIPTIVE_FILES, DROP_FILE, SOURCE_FILE, Drop, DropObject, parse_drop
from mm_assets.drops.rows import read_rows
from mm_assets.drops.samples import Rejection, Sample, VerifiedReader
from mm_assets.drops.source import parse_source
from mm_assets.drops.tar import read_tar
from mm_assets.errors import DropError, MmError
from mm_assets.modalities.table import MODALITY_OF

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
    with (
        tempfile.TemporaryDirectory(prefix="mm-drop-") as scratch,
        Collection(Path(scratch), config or SnapshotConfig(), keeps_blobs=False) as found,
    ):
        problems.extend(check(folder, drop, found, on_object))
        num_samples, rejected = _read_back(found)
        warnings.extend(_unknown_problem(name, unknown) for name, unknown in sorted(found.unknown.items()))
    return DropReport(
        source=drop.source,
        drop=drop.drop,
        num_samples=num_samples,
        problems=(*problems, *rejected),
        warnings=tuple(warnings),
    )


def _read_back(found: Collection) -> tuple[int, list[Problem]]:
    num_samples, problems = 0, list[Problem]()
    for drop, made in found.read_back():
        if isinstance(made, Sample):
            num_samples += 1
        else:
            problems.append(_problem(made, drop))
    return num_samples, sorted(problems, key=lambda problem: (problem.file, problem.line or 0))


def _unknown_problem(extension: str, unknown: UnknownMembers) -> Problem:
    known = ", ".join(sorted(MODALITY_OF))
    return Problem(
        file=unknown.object,
        member=printable(unknown.member),
        message=f"{unknown.num_members} members of unknown extension {extension}, this is the first: their digests are "
        f"kept in the metadata of their samples, and no stage reads their bytes. Extensions that are read: {known}",
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


def _check_tars(folder: Path, drop: Drop, found: Collection, on_object: Callable[[], None]) -> Iterator[Problem]:
    tars = {entry.key for entry in drop.tars}
    for entry in drop.objects:
        try:
            reader = _open(folder, entry)
            if entry.key in tars:
                read_tar(reader, drop, entry.key, found)
            else:
                reader.finish()
        except MmError as error:
            yield _fatal(entry.key, error)
        on_object()


def _check_index(folder: Path, drop: Drop, found: Collection, on_object: Callable[[], None]) -> Iterator[Problem]:
    index = drop.index.key
    broken: set[str] = set()
    for problem in _broken_objects(folder, drop, on_object):
        broken.add(problem.file)
        yield problem
    if index in broken:
        return
    try:
        columns = find_column_problems(folder / index, index, limit=MAX_COLUMN_PROBLEMS)
    except DropError as error:
        yield _fatal(index, error)
        return
    yield from (_column_problem(index, problem) for problem in columns)
    if columns:
        return
    intact = drop.model_copy(update={"objects": [entry for entry in drop.objects if entry.key not in broken]})
    with tempfile.TemporaryDirectory(prefix="mm-drop-") as scratch:
        repeated = lay_out(folder / index, index, 1, Path(scratch)).repeated
    rows = read_index(folder / index, index)
    read_rows(rows, intact, lambda entry: _open(folder, entry), found, repeated=repeated)


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
