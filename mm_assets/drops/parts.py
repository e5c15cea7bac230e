"""Parts: the blobs of a sample that has several of one modality, and the order in which they are read.

A delivery numbers parts by their names (``<key>.2.jpg``), by their place in lists of an index, or by their place in
``content``. A sample whose parts are one of each modality, read in the order of a pack, is a plain sample: nothing
about it says that it has parts.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from mm_assets.modalities.reasons import Refusal
from mm_assets.modalities.table import CAUSAL, MODALITIES, MODALITY_OF, NAMES, PACKED

#: The column of an index that holds a sample's parts in reading order, each an object of one modality.
CONTENT = "content"
#: What MMC4 calls its texts and its pictures; a picture is read before the text it was matched with.
MATCHED_TEXTS, MATCHED_IMAGES = "text_list", "image_info"
NUMBERED = re.compile(r"([0-9]{1,3})\.([^.]+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One part as a row of an index has it: a text, the name of a file, or bytes; ``number`` is None without a list."""

    modality: str
    number: int | None
    value: str | bytes


def part_of(extension: str) -> tuple[int | None, str]:
    """Number and extension of a part: ``2.jpg`` is (2, ``jpg``), ``jpg`` is (None, ``jpg``)."""
    numbered = NUMBERED.fullmatch(extension)
    return (None, extension) if numbered is None else (int(numbered[1]), numbered[2])


def numbered_modality(extension: str) -> str | None:
    """The modality of a member's extension, numbered or not; None if it is unknown."""
    return MODALITY_OF.get(part_of(extension)[1])


def reading_order(parts: Sequence[tuple[str, int | None]]) -> list[int]:
    """Positions of parts, given as modality and number, in the order in which they are read.

    By number, at one number in the order of a pack. Where one modality alone is numbered, its parts stay together in
    the order of a pack; where several are, what has no number comes first, and of causal modalities last.
    """
    place = {name: index for index, name in enumerate(PACKED)}
    is_mixed = len({modality for modality, number in parts if number is not None}) > 1

    def key(position: int) -> tuple[int, int, int]:
        modality, number = parts[position]
        if not is_mixed:
            return 0, place[modality], -1 if number is None else number
        if number is None:
            return (2 if modality in CAUSAL else 0), 0, place[modality]
        return 1, number, place[modality]

    return sorted(range(len(parts)), key=key)


def is_plain(modalities: Sequence[str]) -> bool:
    """Whether a sample with these parts, in reading order, has one of each modality in the order of a pack."""
    return list(modalities) == [name for name in PACKED if name in set(modalities)]


def repeated_place(parts: Sequence[tuple[str, int | None]]) -> int | None:
    """The position of the first part whose place no number tells from an earlier one's, if any."""
    numbered = {modality for modality, number in parts if number is not None}
    seen: set[tuple[str, int | None]] = set()
    for position, (modality, number) in enumerate(parts):
        if (modality, number) in seen or (number is None and modality in numbered):
            return position
        seen.add((modality, number))
    return None


def too_many(num_parts: int, size_bytes: int, *, max_parts: int, max_bytes: int) -> Refusal | None:
    """Why a sample of that many parts and bytes is refused, if it is."""
    if num_parts > max_parts:
        return Refusal("too_many_parts", f"sample has {num_parts} parts; {max_parts} are allowed")
    if size_bytes > max_bytes:
        return Refusal("too_large", f"sample has {size_bytes} bytes in {num_parts} parts; {max_bytes} are allowed")
    return None


def row_cells(columns: Mapping[str, Any], *, has_content: bool) -> list[Cell] | Refusal:
    """The media of a row in reading order, or why they cannot be read.

    Args:
        columns: A row under the names of a sample's columns.
        has_content: Whether its column ``content`` holds parts.
    """
    cells: list[Cell] = []
    for modality in NAMES:
        value: Any = columns.get(modality)
        if isinstance(value, list):
            values = cast("list[Any]", value)
            cells += [Cell(modality=modality, number=n, value=item) for n, item in enumerate(values) if _is_there(item)]
        elif _is_there(value):
            cells.append(Cell(modality=modality, number=None, value=value))
    if has_content and columns.get(CONTENT) is not None:
        if cells:
            return Refusal("bad_row", f"row has {CONTENT} and {cells[0].modality} of its own; one of them is expected")
        read = _content_cells(columns[CONTENT])
        if isinstance(read, Refusal):
            return read
        cells = read
    return [cells[position] for position in reading_order([(cell.modality, cell.number) for cell in cells])]


def named_files(columns: Mapping[str, Any], modalities: Sequence[str], *, has_content: bool) -> list[str]:
    """The names of files that a row gives for ``modalities``, also where the row was read without its bytes."""
    values: list[Any] = [columns.get(name) for name in modalities]
    content: Any = columns.get(CONTENT) if has_content else None
    for item in cast("list[Any]", content) if isinstance(content, list) else []:
        if isinstance(item, dict):
            values += [cast("dict[str, Any]", item).get(name) for name in modalities]
    flat = [item for value in values for item in (cast("list[Any]", value) if isinstance(value, list) else [value])]
    return [item for item in flat if isinstance(item, str) and item]


def wrong_cell(value: object) -> str | None:
    """What is wrong with the type of a medium's cell, if anything; bytes are the business of Parquet."""
    if value is None or isinstance(value, str):
        return None
    if not isinstance(value, list):
        return f"is a {type(value).__name__}"
    kinds = sorted({type(item).__name__ for item in cast("list[Any]", value) if not isinstance(item, str | None)})
    return f"is a list with {kinds[0]} in it" if kinds else None


def holds_parts(value: object) -> bool:
    """Whether a value of a column ``content`` is a list of parts."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(item, dict) and _part_keys(cast("dict[str, Any]", item)) for item in cast("list[Any]", value))


def matched_content(texts: object, images: object) -> list[dict[str, Any]]:
    """MMC4's texts and pictures as ``content``: each picture before the text of its ``matched_text_index``."""
    found: dict[int, list[object]] = {}
    for item in cast("list[Any]", images) if isinstance(images, list) else []:
        info = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
        index = info.get("matched_text_index")
        found.setdefault(index if isinstance(index, int) else 0, []).append(info.get("image_name"))
    content: list[dict[str, Any]] = []
    for number, text in enumerate(cast("list[Any]", texts) if isinstance(texts, list) else []):
        content += [{"image": name} for name in found.pop(number, [])]
        content.append({"text": text})
    return content + [{"image": name} for number in sorted(found) for name in found[number]]


def said_of_parts(value: object) -> list[dict[str, Any]]:
    """What the items of a column ``content`` say besides their media: each with the place of its part.

    The place is that at which the part is read; None for a part that is empty, and so is not there. A ``type`` that is
    the part's modality says nothing more.
    """
    said: list[dict[str, Any]] = []
    place = 0
    for item in cast("list[dict[str, Any]]", value) if isinstance(value, list) else []:
        keys = _part_keys(item)
        is_part = any(_is_there(item[name]) for name in keys)
        known = (*NAMES, *(("type",) if item.get("type") in keys else ()))
        further = {name: what for name, what in item.items() if name not in known and what is not None}
        if further:
            said.append({**further, "place": place if is_part else None})
        place += is_part
    return said


def part_names(modalities: Sequence[str]) -> list[str]:
    """What messages call parts: ``image`` for the only one of its modality, else ``image 2 of 3``."""
    totals, seen = Counter(modalities), Counter[str]()
    names: list[str] = []
    for modality in modalities:
        seen[modality] += 1
        names.append(modality if totals[modality] == 1 else f"{modality} {seen[modality]} of {totals[modality]}")
    return names


def _is_there(value: object) -> bool:
    # An empty string is how many exports spell "none": it is neither a file name nor a text.
    return value is not None and value != ""


def _part_keys(item: Mapping[str, Any]) -> list[str]:
    return [name for name in NAMES if item.get(name) is not None]


def _content_cells(value: object) -> list[Cell] | Refusal:
    if not isinstance(value, list):
        return Refusal("bad_row", f"{CONTENT} is a {type(value).__name__}; a list of parts is expected")
    cells: list[Cell] = []
    for number, item in enumerate(cast("list[Any]", value)):
        entry = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
        keys = _part_keys(entry)
        if len(keys) != 1:
            expected = f"an object with one of {', '.join(MODALITIES)} is expected"
            empty = " and ".join(name for name in NAMES if name in entry)
            got = " and ".join(keys) or (f"{empty} without a value" if empty else "none")
            return Refusal("bad_row", f"part {number} of {CONTENT} has {got}; {expected}")
        part = entry[keys[0]]
        if not isinstance(part, str | bytes):
            return Refusal("bad_row", f"part {number} of {CONTENT}: {keys[0]} is a {type(part).__name__}")
        if _is_there(part):
            cells.append(Cell(modality=keys[0], number=number, value=part))
    return cells
