"""Makes ``index.jsonl`` for a folder of loose files ``<key>.<extension>``: files of one stem form a sample.

Files ``<key>.<number>.<extension>`` are parts of sample ``<key>``, in the order of their numbers, as in tars.
The text of ``.txt`` files moves into the index; bytes that are not UTF-8 are kept as lone surrogates, so that the
snapshot restores and rejects exactly those bytes. ``.json`` gives further columns, ``.cls`` a label. Files of one
modality in folders are labelled by their folder, as Hugging Face's imagefolder and audiofolder are, unless a file says
a label itself.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mm_assets.drops.columns import FILE_MODALITIES
from mm_assets.drops.fields import parse_object
from mm_assets.drops.parts import CONTENT, reading_order, repeated_place
from mm_assets.drops.record import INDEX_SUFFIXES
from mm_assets.errors import DropError
from mm_assets.modalities.reasons import Refusal
from mm_assets.modalities.table import MODALITIES, MODALITY_OF, NAMES, any_of

NUMBERED_STEM = re.compile(r"(.*[^/.][^/]*)\.([0-9]{1,3})")
#: Folders that say which split their files are for, and nothing about a class.
SPLIT_FOLDERS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval"})


def index_loose_files(folder: Path, names: Sequence[str], on_note: Callable[[str], None] = lambda _: None) -> bytes:
    """The index of the files ``names`` (relative to ``folder``), one row per stem, sorted.

    Raises:
        DropError: two files of one stem have the same modality, or a ``.json`` is not an object.
    """
    rows: dict[str, dict[str, Any]] = {}
    described: list[tuple[str, str]] = []
    parts: dict[str, list[tuple[str, int | None, str]]] = {}
    for name in sorted(names):
        stem = PurePosixPath(name).with_suffix("").as_posix()
        extension = PurePosixPath(name).suffix.lower().lstrip(".")
        if extension in MODALITY_OF and (numbered := NUMBERED_STEM.fullmatch(stem)):
            parts.setdefault(numbered[1], []).append((MODALITY_OF[extension], int(numbered[2]), name))
            continue
        column = MODALITY_OF.get(extension) or {"cls": "label"}.get(extension)
        if extension == "json":
            described.append((stem, name))
            rows.setdefault(stem, {"id": stem})
        elif column is not None:
            _add_file(folder, name, rows.setdefault(stem, {"id": stem}), column)
    for stem, numbered_parts in parts.items():
        _add_parts(folder, rows.setdefault(stem, {"id": stem}), numbered_parts)
    if not rows:
        raise _no_data(folder, names)
    _add_descriptions(folder, rows, described, on_note)
    classes = class_folders(rows)
    for stem, label in classes.items():
        rows[stem]["label"] = label
    if parts:
        on_note(_parts_note(parts))
    if classes:
        labels = sorted(set(classes.values()))
        on_note(f"labels are the names of {len(labels)} folders, {labels[0]} to {labels[-1]}")
    lines = (json.dumps(row, ensure_ascii=True, sort_keys=True) for row in (rows[stem] for stem in sorted(rows)))
    return ("\n".join(lines) + "\n").encode("ascii")


def _add_file(folder: Path, name: str, row: dict[str, Any], column: str) -> None:
    if column in row:
        raise DropError(
            f"{folder / name}: is the second {column} of sample {row['id']}: expected one. "
            "Rename or remove one of them."
        )
    is_file = column in MODALITIES and not MODALITIES[column].is_inline
    row[column] = name if is_file else _text(folder / name, strip=column == "label")


def _parts_note(parts: Mapping[str, Sequence[object]]) -> str:
    first, num_files = min(parts), sum(map(len, parts.values()))
    return (
        f"{num_files} files with a number before their extension are parts of {len(parts)} samples: {first} has "
        f"{len(parts[first])}"
    )


def _no_data(folder: Path, names: Sequence[str]) -> DropError:
    known = ", ".join(sorted(MODALITY_OF))
    other = next((name for name in sorted(names) if name.endswith(INDEX_SUFFIXES)), None)
    hint = "" if other is None else f" Name {other} with --index if it is the index."
    return DropError(f"{folder}: holds no data: expected tars, an index, or files ending in {known}.{hint}")


def _add_parts(folder: Path, row: dict[str, Any], parts: list[tuple[str, int | None, str]]) -> None:
    """Adds parts to a row: lists by modality, or ``content`` where several modalities are numbered.

    Raises:
        DropError: two of them are of one modality and number, or a file of their modality has none.
    """
    found = [(modality, None, str(row[modality])) for modality in NAMES if modality in row] + parts
    places = [(modality, number) for modality, number, _ in found]
    repeated = repeated_place(places)
    if repeated is not None:
        raise DropError(
            f"{folder / row['id']}: two files of this sample are {places[repeated][0]} at one place: expected a number "
            "of its own for each. Rename or remove one of them."
        )

    def value(modality: str, number: int | None, name: str) -> str:
        is_text = MODALITIES[modality].is_inline and number is not None
        return _text(folder / name, strip=False) if is_text else name

    ordered = [found[position] for position in reading_order(places)]
    if len({modality for modality, _, _ in parts}) == 1:
        row[parts[0][0]] = [value(*part) for part in ordered if part[1] is not None]
        return
    for name in NAMES:
        row.pop(name, None)
    row[CONTENT] = [{part[0]: value(*part)} for part in ordered]


def class_folders(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The label of each sample where folders are classes; none where they are not.

    They are where every sample has one file of the same modality and no label or text of its own, all are equally
    deep, and the folders are several and not named for splits.
    """
    kinds = {tuple(sorted(set(row) - {"id"})) for row in rows.values()}
    folders = {stem: PurePosixPath(stem).parent for stem in rows}
    depths = {len(folder.parts) for folder in folders.values()}
    labels = {stem: folder.name for stem, folder in folders.items()}
    is_one_kind = len(kinds) == 1 and next(iter(kinds)) in {(name,) for name in FILE_MODALITIES}
    if not is_one_kind or len(depths) != 1 or len(set(labels.values())) < 2:
        return {}
    return {} if {label.lower() for label in labels.values()} <= SPLIT_FOLDERS else labels


def _text(path: Path, *, strip: bool) -> str:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    return text.strip() if strip else text


def _add_descriptions(
    folder: Path,
    rows: Mapping[str, dict[str, Any]],
    described: Sequence[tuple[str, str]],
    on_note: Callable[[str], None],
) -> None:
    ignored = {name: left for stem, name in described if (left := _describe(folder / name, rows[stem]))}
    if ignored:
        on_note(_ignored_note(ignored))


def _describe(path: Path, row: dict[str, Any]) -> list[str]:
    """Adds the columns of a ``.json`` to a row; returns those that files of the sample say already."""
    columns = parse_object(path.read_bytes(), "the description", "bad_metadata")
    if isinstance(columns, Refusal):
        raise DropError(f"{path}: {columns.detail}: expected an object with columns. Correct the file.")
    # What the files themselves say wins over a description of them.
    has = {name for item in [row, *row.get(CONTENT, ())] for name in item} & {"id", CONTENT, *NAMES}
    row.update({name: value for name, value in columns.items() if name not in has})
    return sorted(name for name in columns if name in has)


def _ignored_note(ignored: Mapping[str, Sequence[str]]) -> str:
    names = any_of(tuple(sorted({name for of_file in ignored.values() for name in of_file})))
    return (
        f"{len(ignored)} .json files say {names} of a sample that has it by its files, {min(ignored)} for example: "
        "what they say of it is left out"
    )
