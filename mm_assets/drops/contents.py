"""What a delivery consists of: its format, and of an index which files it names and how it is read.

The delivery is a list of names, in a folder or below a prefix; only an index is opened.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from mm_assets.drops.columns import FILE_MODALITIES, URI_SCHEME, Columns, find_columns
from mm_assets.drops.index import read_index, see_index
from mm_assets.drops.parts import CONTENT, named_files
from mm_assets.drops.record import INDEX_FILES, INDEX_SUFFIXES, METADATA_FILES, is_tar
from mm_assets.errors import DropError
from mm_assets.modalities.reasons import Refusal

#: Folders beside an index in which its files are where they are not beside it: Common Voice has ``clips``.
MEDIA_FOLDERS = ("clips",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What was found.

    Attributes:
        format: Of the drop.
        names: Of its objects, the index among them.
        uris: That cells of the index name.
        index: Name of the index.
        columns: The names its columns have.
        media_folder: Where, beside the index, its files are.
    """

    format: Literal["webdataset", "index"]
    names: tuple[str, ...]
    uris: frozenset[str] = frozenset()
    index: str | None = None
    columns: Columns = field(default_factory=dict[str, "str | None"])
    media_folder: str | None = None

    @property
    def index_file(self) -> str | None:
        """The index where its name does not say that it is one."""
        return None if self.index in INDEX_FILES else self.index


def find_contents(
    names: Sequence[str], path_of: Callable[[str], Path], where: str, index: str | None = None
) -> Contents | None:
    """The tars, or the index and what it names; None if there is neither.

    Args:
        names: All files, relative to ``where``.
        path_of: A local copy of one of them.
        where: The folder or prefix, for errors.
        index: The name of the index, if it has none of the known ones.

    Raises:
        DropError: there are several indexes, ``index`` is not there, or the index is unusable.
    """
    chosen = _index_of(names, where, index)
    tars = tuple(name for name in names if is_tar(name))
    if chosen is None and tars:
        return Contents(format="webdataset", names=tars)
    if chosen is None:
        chosen = _metadata_of(names, where)
    return None if chosen is None else _indexed(chosen, set(names), path_of, where)


def _index_of(names: Sequence[str], where: str, index: str | None) -> str | None:
    if index is not None:
        if index not in names:
            raise DropError(f"{where}: has no file {index}. Name the index relative to it.")
        if PurePosixPath(index).suffix not in INDEX_SUFFIXES:
            raise DropError(f"{where}: {index} is not an index: expected a file ending in {', '.join(INDEX_SUFFIXES)}.")
        return index
    indexes = [name for name in names if name in INDEX_FILES]
    if len(indexes) > 1:
        raise DropError(f"{where}: has two indexes: expected one, got {' and '.join(indexes)}. Remove the other.")
    return indexes[0] if indexes else None


def _metadata_of(names: Sequence[str], where: str) -> str | None:
    found = [name for name in names if PurePosixPath(name).name in METADATA_FILES]
    if len(found) > 1:
        raise DropError(
            f"{where}: has {len(found)} indexes, {found[0]} and {found[1]} among them: expected one. "
            "Deliver each with its files as a drop of its own, or name one with --index."
        )
    return found[0] if found else None


def _indexed(index: str, names: Collection[str], path_of: Callable[[str], Path], where: str) -> Contents:
    path, place = path_of(index), f"{where.rstrip('/')}/{index}"
    columns = find_columns(see_index(path, place))
    base = index.rpartition("/")[0]
    folders = ("", *MEDIA_FOLDERS)
    found: dict[str, set[str]] = {folder: set() for folder in folders}
    uris: set[str] = set()
    for row in read_index(path, place, columns, only=(*FILE_MODALITIES, CONTENT)):
        if isinstance(row.columns, Refusal):
            continue
        for value in named_files(row.columns, FILE_MODALITIES, has_content=CONTENT in columns):
            if value.startswith(URI_SCHEME):
                uris.add(value)
                continue
            for folder in folders:
                name = "/".join(part for part in (base, folder, value.removeprefix("./")) if part)
                if name in names and name != index:
                    found[folder].add(name)
    folder = next((folder for folder in folders if found[folder]), "")
    return Contents(
        format="index",
        names=(index, *sorted(found[folder])),
        uris=frozenset(uris),
        index=index,
        columns=columns,
        media_folder=folder or None,
    )
