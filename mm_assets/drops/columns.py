"""Which column of an index is read as which column of a sample.

It is found once, when the drop is made, recorded in ``drop.json`` and only followed afterwards. A column that has the
name of a sample's column always wins; every column that is read as nothing else is metadata.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from mm_assets.modalities.table import MODALITIES, MODALITY_OF

#: Per column of a sample the column of the index that is read as it; None for ``id``: the number of the row, from 0.
Columns = Mapping[str, str | None]
NO_COLUMNS: Columns = {}

#: What other programs call a column, the first that an index has counts.
OTHER_NAMES = {"text": ("caption", "sentence"), "language": ("locale",), "image": ("img",)}
#: Columns with names of files, of the modality that a name's extension says.
FILE_COLUMNS = ("file_name", "path")
URI_SCHEME = "s3://"
FILE_MODALITIES = tuple(name for name, kind in MODALITIES.items() if not kind.is_inline)
#: Names that decide how an index is read; others, of which rows may have any number, are not remembered.
SOUGHT = ("id", *MODALITIES, *OTHER_NAMES, *(name for names in OTHER_NAMES.values() for name in names), *FILE_COLUMNS)


@dataclass(kw_only=True, slots=True)
class Seen:
    """What an index has: the names of its columns, and the modalities of the files that its columns name.

    ``is_self_contained`` says that its rows hold their media, so that nothing outside names them.
    """

    names: set[str] = field(default_factory=lambda: set[str]())
    files: dict[str, set[str]] = field(default_factory=lambda: dict[str, set[str]]())
    is_self_contained: bool = False

    def add_row(self, values: Mapping[str, Any]) -> None:
        """Takes note of one row."""
        self.names.update(name for name in SOUGHT if name in values)
        for column in FILE_COLUMNS:
            modality = modality_of_file(values.get(column))
            if modality is not None:
                self.files.setdefault(column, set()).add(modality)


def modality_of_file(value: object) -> str | None:
    """The modality of a file's name or ``s3://`` URI, by its extension; None for anything else."""
    if not isinstance(value, str) or ("://" in value and not value.startswith(URI_SCHEME)):
        return None
    modality = MODALITY_OF.get(PurePosixPath(value).suffix.lower().lstrip("."))
    return modality if modality in FILE_MODALITIES else None


def find_columns(seen: Seen) -> dict[str, str | None]:
    """The columns that are read under another name than their own."""
    found: dict[str, str | None] = {}
    for column, others in OTHER_NAMES.items():
        other = next((name for name in others if name in seen.names), None)
        if column not in seen.names and other is not None:
            found[column] = other
    named = None
    for column in FILE_COLUMNS:
        free = [name for name in FILE_MODALITIES if name in seen.files.get(column, ()) and name not in seen.names]
        if free and named is None:
            named = column
            found |= dict.fromkeys((name for name in free if name not in found), column)
    if "id" not in seen.names:
        if named is not None:
            found["id"] = named
        elif seen.is_self_contained:
            found["id"] = None
    return dict(sorted(found.items()))


def describe_columns(columns: Columns, seen: Seen) -> list[str]:
    """A sentence for every column that is read under another name, and for every one that could have been."""
    said = [
        f"column {source} is read as {name}" if source is not None else "has no column id: rows are numbered from 0"
        for name, source in columns.items()
    ]
    used = set(columns.values())
    for name, others in [*OTHER_NAMES.items(), ("media", FILE_COLUMNS)]:
        left = [other for other in others if other in seen.names and other not in used]
        taken = name if name in seen.names else columns.get(name)
        reason = f": {name} is read from column {taken}" if taken else ""
        said += [f"column {other} is kept as metadata{reason}" for other in left]
    return said


def apply_columns(values: Mapping[str, Any], columns: Columns, number: int) -> dict[str, Any]:
    """A row under the names of a sample's columns."""
    if not columns:
        return dict(values)
    used = set(columns.values())
    made = {name: value for name, value in values.items() if name not in used}
    for name, source in columns.items():
        if source is None:
            made[name] = str(number)
        elif source in values and _belongs(name, values[source], source, columns):
            made[name] = values[source]
    return made


def _belongs(name: str, value: object, source: str, columns: Columns) -> bool:
    """Whether a value of a column that several modalities share is one of ``name``."""
    sharing = [other for other in FILE_MODALITIES if columns.get(other) == source]
    if name not in sharing or len(sharing) == 1:
        return True
    return name == (modality_of_file(value) or sharing[0])


def source_columns(columns: Columns, names: Iterable[str]) -> dict[str, str]:
    """Per column of a sample the column of the index to look at, without those that no column stands for."""
    sources = {name: columns.get(name, name) for name in names}
    return {name: source for name, source in sources.items() if source is not None}
