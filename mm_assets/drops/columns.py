"""Which column of an index is read as which column of a sample.

It is found once, when the drop is made, recorded in ``drop.json`` and only followed afterwards. A column that has the
name of a sample's column always wins; every column that is read as nothing else is metadata.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, cast

from mm_assets.drops.parts import CONTENT, MATCHED_IMAGES, MATCHED_TEXTS, holds_parts, matched_content
from mm_assets.modalities.table import MODALITIES, MODALITY_OF

#: Per column of a sample the column of the index that is read as it; None for ``id``: the number of the row, from 0.
Columns = Mapping[str, str | None]
NO_COLUMNS: Columns = {}

#: What other programs call a column, the first that an index has counts.
OTHER_NAMES = {
    "text": ("caption", "sentence", "texts"),
    "language": ("locale",),
    "image": ("img", "images"),
    "audio": ("audios",),
}
#: Columns with names of files, of the modality that a name's extension says.
FILE_COLUMNS = ("file_name", "path", "file_names")
#: Of these the ones that hold lists, which are no ids.
LIST_COLUMNS = ("file_names",)
URI_SCHEME = "s3://"
FILE_MODALITIES = tuple(name for name, kind in MODALITIES.items() if not kind.is_inline)
#: Names that decide how an index is read; others, of which rows may have any number, are not remembered.
SOUGHT = (
    "id", *MODALITIES, *OTHER_NAMES, *(name for names in OTHER_NAMES.values() for name in names), *FILE_COLUMNS,
)  # fmt: skip


@dataclass(kw_only=True, slots=True)
class Seen:
    """What an index has: the names of its columns, and the modalities of the files that its columns name.

    ``is_self_contained`` says that its rows hold their media, so that nothing outside names them; ``parts`` names the
    column, if any, that holds the parts of samples in reading order.
    """

    names: set[str] = field(default_factory=lambda: set[str]())
    files: dict[str, set[str]] = field(default_factory=lambda: dict[str, set[str]]())
    is_self_contained: bool = False
    parts: str | None = None

    def add_row(self, values: Mapping[str, Any]) -> None:
        """Takes note of one row."""
        self.names.update(name for name in SOUGHT if name in values)
        if holds_parts(values.get(CONTENT)):
            self.parts = CONTENT
        elif self.parts is None and {MATCHED_TEXTS, MATCHED_IMAGES} <= values.keys():
            self.parts = MATCHED_TEXTS
        for column in FILE_COLUMNS:
            modality = modality_of_file(values.get(column))
            if modality is not None:
                self.files.setdefault(column, set()).add(modality)


def modality_of_file(value: object) -> str | None:
    """The modality of a file's name or ``s3://`` URI, or of the first of a list, by its extension; else None."""
    if isinstance(value, list):
        value = next((item for item in cast("list[Any]", value) if item is not None), None)
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
        if named is not None and named not in LIST_COLUMNS:
            found["id"] = named
        elif seen.is_self_contained or seen.parts == MATCHED_TEXTS or named is not None:
            found["id"] = None
    if seen.parts is not None:
        found[CONTENT] = seen.parts
    return dict(sorted(found.items()))


def describe_columns(columns: Columns, seen: Seen) -> list[str]:
    """A sentence for every column that is read under another name, and for every one that could have been."""
    said = [
        _said(name, source) if source is not None else "has no column id: rows are numbered from 0"
        for name, source in columns.items()
    ]
    used = set(columns.values())
    for name, others in [*OTHER_NAMES.items(), ("media", FILE_COLUMNS)]:
        left = [other for other in others if other in seen.names and other not in used]
        taken = name if name in seen.names else columns.get(name)
        reason = f": {name} is read from column {taken}" if taken else ""
        said += [f"column {other} is kept as metadata{reason}" for other in left]
    return said


def _said(name: str, source: str) -> str:
    if name != CONTENT:
        return f"column {source} is read as {name}"
    read = "the parts of a sample, in order"
    if source == MATCHED_TEXTS:
        read += f", each picture of {MATCHED_IMAGES} before the text of its matched_text_index"
    return f"column {source} is read as {read}"


def apply_columns(values: Mapping[str, Any], columns: Columns, number: int) -> dict[str, Any]:
    """A row under the names of a sample's columns."""
    if not columns:
        return dict(values)
    used = set(columns.values())
    made = {name: value for name, value in values.items() if name not in used}
    for name, source in columns.items():
        if source is None:
            made[name] = str(number)
        elif name == CONTENT and source == MATCHED_TEXTS:
            made[name] = matched_content(values.get(source), values.get(MATCHED_IMAGES))
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
