"""Makes ``index.jsonl`` for a folder of loose files ``<key>.<extension>``: files of one stem form a sample.

The text of ``.txt`` files moves into the index; bytes that are not UTF-8 are kept as lone surrogates, so that the
snapshot restores and rejects exactly those bytes. ``.json`` gives further columns, ``.cls`` a label.
"""

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from mm_assets.drops.fields import parse_object
from mm_assets.errors import DropError
from mm_assets.modalities.reasons import Refusal
from mm_assets.modalities.table import MODALITIES, MODALITY_OF, NAMES


def index_loose_files(folder: Path, names: Iterable[str]) -> bytes:
    """The index of the files ``names`` (relative to ``folder``), one row per stem, sorted.

    Raises:
        DropError: two files of one stem have the same modality, or a ``.json`` is not an object.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name in sorted(names):
        stem = PurePosixPath(name).with_suffix("").as_posix()
        extension = PurePosixPath(name).suffix.lower().lstrip(".")
        column = MODALITY_OF.get(extension) or {"cls": "label", "json": "json"}.get(extension)
        if column is None:
            continue
        row = rows.setdefault(stem, {"id": stem})
        if column in row:
            raise DropError(
                f"{folder / name}: is the second {column} of sample {stem}: expected one. Rename or remove one of them."
            )
        if column == "json":
            row.update(_columns(folder / name))
        else:
            is_file = column in MODALITIES and not MODALITIES[column].is_inline
            row[column] = name if is_file else _text(folder / name, strip=column == "label")
    if not rows:
        known = ", ".join(sorted(MODALITY_OF))
        raise DropError(f"{folder}: holds no data: expected tars, an index, or files ending in {known}.")
    lines = (json.dumps(row, ensure_ascii=True, sort_keys=True) for row in (rows[stem] for stem in sorted(rows)))
    return ("\n".join(lines) + "\n").encode("ascii")


def _text(path: Path, *, strip: bool) -> str:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    return text.strip() if strip else text


def _columns(path: Path) -> dict[str, Any]:
    columns = parse_object(path.read_bytes(), "the description", "bad_metadata")
    if isinstance(columns, Refusal):
        raise DropError(f"{path}: {columns.detail}: expected an object with columns. Correct the file.")
    # What the files themselves say wins over a description of them.
    return {name: value for name, value in columns.items() if name not in ("id", *NAMES)}
