"""Checking a local drop before it is pushed: every problem by file and line or member.

The files are read by the same code that a snapshot uses, so what passes here passes there, apart from decoding.
"""

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mm_assets.drops.collection import Collection, UnknownMembers
from mm_assets.drops.columns import describe_columns
from mm_assets.drops.create import is_index_generated, left_out, list_files
from mm_assets.drops.fields import printable
from mm_assets.drops.index import IndexProblem, find_column_problems, read_index, see_index
from mm_assets.drops.layout import lay_out
from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.parquet_index import describe_classes
from mm_assets.drops.raw import open_raw
from mm_assets.drops.record import DESCRIPTIVE_FILES, DROP_FILE, SOURCE_FILE, Drop, DropObject, parse_drop
from mm_assets.drops.rows import OpenObject, read_rows
from mm_assets.drops.samples import Rejection, Sample, VerifiedReader
from mm_assets.drops.source import parse_source
from mm_assets.drops.tar import read_tar
from mm_assets.errors import DropError, MmError
from mm_assets.modalities.table import MODALITY_OF
from mm_assets.scratch import scratch_folder
from mm_assets.store.objects import Store

MAX_COLUMN_PROBLEMS = 100
#: Loose files whose content an index that is made of them holds itself.
INDEXED_SUFFIXES = frozenset({".txt", ".json", ".cls"})


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
    folder: Path,
    *,
    config: SnapshotConfig | None = None,
    open_remote: Callable[[], Store] | None = None,
    on_object: Callable[[], None] = lambda: None,
) -> DropReport:
    """Every problem of the drop in ``folder``, which ``create_drop`` has made.

    Args:
        folder: Holds ``drop.json`` and the objects.
        config: Ceilings; default: those of a release that states none.
        open_remote: Opens the store whose credentials read objects at ``s3://`` URIs.
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
    is_remote = any(entry.uri for entry in drop.objects)
    remote = open_remote() if is_remote and open_remote is not None else None
    return examine_drop(
        drop,
        lambda entry: _open(folder, drop, entry, remote),
        folder / drop.index.name if drop.format == "index" else None,
        config=config or SnapshotConfig(),
        problems=problems,
        warnings=warnings,
        on_object=on_object,
    )


def examine_drop(
    drop: Drop,
    open_object: OpenObject,
    index: Path | None,
    *,
    config: SnapshotConfig,
    is_hashed: bool = False,
    problems: Iterable[Problem] = (),
    warnings: Iterable[Problem] = (),
    on_object: Callable[[], None] = lambda: None,
) -> DropReport:
    """Reads all samples of a drop as a snapshot does, and says what is wrong.

    Args:
        drop: Its record.
        open_object: Opens one of its objects.
        index: A local copy of its index, if it has one.
        config: Ceilings.
        is_hashed: Whether the objects' digests were found just now, so that comparing them again says nothing.
        problems: What is wrong besides.
        warnings: What is to be said besides.
        on_object: Called after each object, for a progress bar.
    """
    found_problems, said = list(problems), list(warnings)
    with (
        scratch_folder("drop") as scratch,
        Collection(scratch, config, keeps_blobs=False) as found,
    ):
        if index is None:
            found_problems.extend(_check_tars(drop, open_object, found, on_object))
        else:
            broken = set[str]()
            if not is_hashed:
                failed = list(_broken_objects(drop, open_object, on_object))
                broken = {problem.file for problem in failed}
                found_problems.extend(failed)
            if drop.index.name not in broken:
                said.extend(_column_notes(drop, index))
                found_problems.extend(_check_index(drop, index, broken, open_object, found))
        num_samples, rejected = _read_back(found)
        said.extend(_unknown_problem(name, unknown) for name, unknown in sorted(found.unknown.items()))
        said.extend(_ignored_problem(found))
    found_problems.extend(rejected)
    if num_samples == 0 and not any(problem.is_fatal for problem in found_problems):
        found_problems.append(_no_samples(drop, len(rejected)))
    return DropReport(
        source=drop.source,
        drop=drop.drop,
        num_samples=num_samples,
        problems=tuple(found_problems),
        warnings=tuple(said),
    )


def _no_samples(drop: Drop, num_rejected: int) -> Problem:
    refused = f"all {num_rejected} samples are refused" if num_rejected else "its objects hold none"
    return Problem(
        file=drop.index.name if drop.format == "index" else DROP_FILE,
        message=f"0 samples are left: {refused}: expected at least one. Correct the data and create the drop again.",
        is_fatal=True,
    )


def _column_notes(drop: Drop, index: Path) -> Iterator[Problem]:
    try:
        sentences = describe_columns(drop.columns, see_index(index, drop.index.name))
        sentences += describe_classes(index, drop.index.name)
    except DropError:
        # The check of the index reports what cannot be read.
        return
    for sentence in sentences:
        yield Problem(file=drop.index.name, message=sentence)
    if drop.media_folder:
        yield Problem(file=drop.index.name, message=f"its files are looked for in {drop.media_folder}/")


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


def _ignored_problem(found: Collection) -> Iterator[Problem]:
    if found.first_ignored is not None:
        name, member = found.first_ignored
        yield Problem(
            file=name,
            member=printable(member),
            message=f"{found.num_ignored} members that are hidden (.name) or describe the tar itself (__name__) are "
            "left out, this is the first",
        )


def _check_source(folder: Path, drop: Drop) -> tuple[list[Problem], list[Problem]]:
    path = folder / SOURCE_FILE
    if not path.is_file():
        return [Problem(file=SOURCE_FILE, message="is missing: run `mm drop create` to get one", is_fatal=True)], []
    return source_problems(path.read_bytes(), SOURCE_FILE, drop)


def source_problems(data: bytes, where: str, drop: Drop) -> tuple[list[Problem], list[Problem]]:
    """Problems and warnings about the description of a drop's source."""
    try:
        source = parse_source(data, where)
    except DropError as error:
        return [Problem(file=where, message=str(error).removeprefix(f"{where}: "), is_fatal=True)], []
    if source.source != drop.source:
        message = f"describes another source: expected {drop.source}, got {source.source}"
        return [Problem(file=where, message=message, is_fatal=True)], []
    if source.undeclared:
        return [], [Problem(file=where, message=f"declares nothing about {', '.join(source.undeclared)}")]
    return [], []


def _stray_files(folder: Path, drop: Drop) -> Iterator[Problem]:
    """One warning per kind of file that stays behind; loose texts that moved into the index are thousands."""
    declared = {entry.name for entry in drop.objects} | DESCRIPTIVE_FILES
    is_generated = is_index_generated(folder)
    kinds: dict[str, list[str]] = {}
    for name in list_files(folder):
        if name not in declared:
            kinds.setdefault(Path(name).suffix, []).append(name)
    for names in kinds.values():
        more = f" ({len(names) - 1} more files of this type are not pushed either)" if len(names) > 1 else ""
        is_in_index = is_generated and Path(names[0]).suffix.lower() in INDEXED_SUFFIXES
        why = f"was read into {drop.index.name}" if is_in_index else "is not listed in drop.json"
        yield Problem(file=names[0], message=f"{why}, so it is not pushed{more}")
    for why, names in left_out(folder).items():
        more = f" ({len(names) - 1} more such files)" if len(names) > 1 else ""
        yield Problem(file=names[0], message=f"{why}, so it is not pushed{more}")


def _check_tars(
    drop: Drop, open_object: OpenObject, found: Collection, on_object: Callable[[], None]
) -> Iterator[Problem]:
    tars = {entry.name for entry in drop.tars}
    for entry in drop.objects:
        try:
            reader = open_object(entry)
            if entry.name in tars:
                read_tar(reader, drop, entry.name, found)
            else:
                reader.finish()
        except MmError as error:
            yield _fatal(entry.name, error)
        on_object()


def _check_index(
    drop: Drop, path: Path, broken: Container[str], open_object: OpenObject, found: Collection
) -> Iterator[Problem]:
    index = drop.index.name
    try:
        columns = find_column_problems(path, index, drop.columns, limit=MAX_COLUMN_PROBLEMS)
        yield from (_column_problem(index, problem) for problem in columns)
        if columns:
            return
        with scratch_folder("drop") as scratch:
            repeated = lay_out(path, index, 1, scratch, drop.columns).repeated
        intact = drop.model_copy(update={"objects": [entry for entry in drop.objects if entry.name not in broken]})
        rows = read_index(path, index, drop.columns)
        read_rows(rows, intact, open_object, found, repeated=repeated)
    except MmError as error:
        yield _fatal(index, error)


def _broken_objects(drop: Drop, open_object: OpenObject, on_object: Callable[[], None]) -> Iterator[Problem]:
    for entry in drop.objects:
        try:
            open_object(entry).finish()
        except MmError as error:
            yield _fatal(entry.name, error)
        on_object()


def _open(folder: Path, drop: Drop, entry: DropObject, remote: Store | None) -> VerifiedReader:
    if entry.uri is not None:
        if remote is None:
            raise DropError(f"{entry.uri}: no store is configured to read it with.")
        return open_raw(remote, drop, entry)
    path = folder / entry.name
    if not path.is_file():
        raise DropError(
            f"{entry.name}: is missing from the folder: expected {entry.digest}. Restore it or create again."
        )
    return VerifiedReader(path.open("rb"), entry, entry.name)


def _fatal(file: str, error: MmError) -> Problem:
    return Problem(file=file, message=str(error).removeprefix(f"{file}: "), is_fatal=True)


def _column_problem(index: str, found: IndexProblem) -> Problem:
    return Problem(file=index, line=found.line, message=f"column {found.column}: {found.detail}", is_fatal=True)


def _problem(rejection: Rejection, drop: Drop) -> Problem:
    is_row = rejection.line is not None
    named = f"{rejection.object}: " if is_row and rejection.object != drop.index.name else ""
    if not is_row and rejection.member is None and (rejection.key or "") not in rejection.detail:
        named = f"sample {printable(rejection.key or '')}: "
    return Problem(
        file=drop.index.name if is_row else rejection.object,
        line=rejection.line,
        member=None if rejection.member is None else printable(rejection.member),
        message=f"{named}{printable(rejection.detail)} ({rejection.reason})",
    )
