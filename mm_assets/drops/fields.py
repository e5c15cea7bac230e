"""Columns of a sample: which names are known, of which type, and which names are mistakes for them."""

import codecs
import difflib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, cast

from mm_assets.drops.limits import MAX_METADATA_DEPTH, SnapshotConfig
from mm_assets.drops.parts import too_many, wrong_cell
from mm_assets.drops.samples import LABEL_COLUMNS, Blob, Rejection, Sample, metadata_json
from mm_assets.drops.time_ranges import COLUMNS as RANGE_COLUMNS
from mm_assets.drops.time_ranges import parse_time_range
from mm_assets.errors import IdentityError
from mm_assets.modalities.reasons import Refusal
from mm_assets.modalities.table import MODALITIES, NAMES

#: Columns of an index. All but ``id`` may be missing, and all are strings or null.
KNOWN_COLUMNS = ("id", *NAMES, *LABEL_COLUMNS)
#: Of a label, a language or a group.
MAX_LABEL_CHARACTERS = 1024
#: Columns whose whole numbers are taken as their decimal text.
NUMBERED_COLUMNS = frozenset({"id", "label", "group"})
SIMILARITY = 0.8

#: Joiners that emoji and the scripts of Persian, Hindi and others are written with.
JOINERS = "\u200c\u200d"
#: Flags of regions: a black flag, tag characters, and the one that ends them. Elsewhere tags are hidden text.
REGION_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f")
#: Control and format characters (marks that reverse the direction of text among them), surrogates, private use, and
#: separators of lines and paragraphs: what an id shows with them is not what it is.
UNSOUND_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


#: Control characters and separators of lines: what a report shows would have other lines.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class _RepeatedNameError(ValueError):
    """An object of JSON gives one name twice; readers keep only one of the values."""


def parse_object(data: bytes, what: str, reason: str) -> dict[str, Any] | Refusal:
    """The JSON object in ``data``, or why there is none: ``reason``, or that it is nested too deep."""
    too_deep = Refusal("metadata_too_deep", f"{what} is nested deeper than {MAX_METADATA_DEPTH} levels")
    try:
        # Some editors write a mark in front of the first line.
        text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
        values = json.loads(text, object_pairs_hook=_distinct)
    except _RepeatedNameError as error:
        return Refusal(reason, f"{what} gives {error} twice")
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        return Refusal(reason, f"{what} is not valid JSON: {error}")
    except ValueError:
        return Refusal(reason, f"{what} is not valid JSON: a number has too many digits")
    except RecursionError:
        return too_deep
    if not isinstance(values, dict):
        return Refusal(reason, f"{what} is a {type(values).__name__}; an object is expected")
    columns = cast("dict[str, Any]", values)
    return too_deep if _is_too_deep(columns) else columns


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _RepeatedNameError(name)
            seen.add(name)
    return values


def _is_too_deep(values: Mapping[str, Any]) -> bool:
    """Whether containers are nested more than ``MAX_METADATA_DEPTH`` deep, the outermost counted."""
    level: list[Any] = [values]
    for _ in range(MAX_METADATA_DEPTH):
        children = (child for item in level for child in (item.values() if isinstance(item, dict) else item))
        level = [child for child in children if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def repeated_names(names: Iterable[str]) -> list[str]:
    """The names that are given more than once, sorted."""
    return sorted(name for name, number in Counter(names).items() if number > 1)


def misspelt(name: str, known: Collection[str]) -> str | None:
    """The known column that ``name`` looks like a mistake for, or None. ``known`` names cannot be mistakes."""
    if name in known:
        return None
    folded = name.strip().lower()
    if folded in known:
        return folded
    close = difflib.get_close_matches(folded, [column for column in known if len(column) > 2], n=1, cutoff=SIMILARITY)
    return close[0] if close else None


def as_text(values: Mapping[str, object], names: Iterable[str]) -> dict[str, str]:
    """The whole numbers among the values of ``names``, as their decimal text."""
    numbers = {name: values.get(name) for name in names}
    return {
        name: str(value) for name, value in numbers.items() if isinstance(value, int) and not isinstance(value, bool)
    }


def expected_type(column: str) -> str:
    """What a value of a known column may be, in words."""
    if column in NUMBERED_COLUMNS:
        return "a string, a whole number or null"
    return "a string, a list of strings or null" if column in NAMES else "a string or null"


def wrongly_typed(values: Mapping[str, object], known: Collection[str]) -> tuple[str, str] | None:
    """The first known column of a wrong type, and what it is: all are strings or null, media also lists of these."""
    for name in known:
        value = values.get(name)
        wrong = wrong_cell(value)
        if wrong is None and isinstance(value, list) and name not in NAMES:
            wrong = "is a list"
        if wrong is not None:
            return name, wrong
    return None


def finish_sample(
    key: str,
    object_key: str,
    parts: Sequence[Blob],
    columns: Mapping[str, object],
    config: SnapshotConfig,
    *,
    line: int | None = None,
) -> Sample | Rejection:
    """The sample made of ``parts`` and ``columns``, or why its key, its parts or its metadata are refused."""
    trouble = _bad_key(key, config)
    ranged = [part for part in parts if MODALITIES[part.modality].has_time_ranges]
    time_range = parse_time_range(columns, len(ranged)) if ranged else None
    own = (*LABEL_COLUMNS, *RANGE_COLUMNS) if ranged else LABEL_COLUMNS
    further = {name: value for name, value in columns.items() if name not in own}
    metadata = "{}"
    if trouble is None:
        trouble = _bad_label(columns)
    if isinstance(time_range, Refusal):
        trouble, time_range = trouble or (time_range.reason, time_range.detail), None
    if trouble is None:
        trouble = _too_many(parts, config)
    if trouble is None:
        try:
            metadata = metadata_json(further)
        except IdentityError:
            trouble = "bad_metadata", "metadata cannot be written as JSON: a name or value is not Unicode text"
        else:
            if len(metadata.encode()) > config.max_metadata_bytes:
                size = f"{len(metadata.encode())} bytes; {config.max_metadata_bytes} are allowed"
                trouble = "metadata_too_large", f"metadata has {size}"
    if trouble is not None:
        reason, detail = trouble
        return Rejection(reason=reason, detail=detail, object=object_key, key=printable(key), line=line)
    # Many exports spell "none" as an empty string.
    labels = {name: cast("str | None", columns.get(name) or None) for name in LABEL_COLUMNS}
    if time_range is not None:
        # Neighbouring scenes of one video must not fall on both sides of a split.
        labels["group"] = labels["group"] or ranged[0].digest
    return Sample(
        key=key,
        object=object_key,
        parts=tuple(parts),
        metadata=metadata,
        time_range=time_range,
        **labels,
    )


def _too_many(parts: Sequence[Blob], config: SnapshotConfig) -> tuple[str, str] | None:
    refusal = too_many(
        len(parts),
        sum(part.size_bytes for part in parts),
        max_parts=config.max_sample_parts,
        max_bytes=config.max_sample_bytes,
    )
    return None if refusal is None else (refusal.reason, refusal.detail)


def _bad_label(columns: Mapping[str, object]) -> tuple[str, str] | None:
    for name in LABEL_COLUMNS:
        if len(str(columns.get(name))) > MAX_LABEL_CHARACTERS:
            size = f"{len(str(columns.get(name)))} characters; {MAX_LABEL_CHARACTERS} are allowed"
            return "bad_metadata", f"{name} has {size}"
        try:
            str(columns.get(name)).encode("utf-8")
        except UnicodeEncodeError as error:
            return "bad_metadata", f"{name} is not Unicode text: {error.reason}"
    return None


def printable(key: str) -> str:
    """``key`` as it may stand in one line of a report or in a table, whatever was in the data."""
    whole = key.encode("utf-8", "backslashreplace").decode("utf-8")
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), whole)


def _is_sound(character: str) -> bool:
    """Whether an id may have it. What Unicode has not assigned yet, as new emoji, is sound; noncharacters are not."""
    if character in JOINERS:
        return True
    is_noncharacter = ord(character) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(character) <= 0xFDEF
    return not is_noncharacter and unicodedata.category(character) not in UNSOUND_CATEGORIES


def _bad_key(key: str, config: SnapshotConfig) -> tuple[str, str] | None:
    try:
        size_bytes = len(key.encode("utf-8"))
    except UnicodeEncodeError:
        return "bad_id", f"id {key!r} is not Unicode text"
    if not key:
        return "bad_id", "id is empty"
    unsound = next((character for character in REGION_FLAG.sub("", key) if not _is_sound(character)), None)
    if unsound is not None:
        return "bad_id", f"id {key!r} has the character U+{ord(unsound):04X}, which cannot be seen"
    if size_bytes > config.max_key_bytes:
        return "bad_id", f"id has {size_bytes} bytes; {config.max_key_bytes} are allowed"
    return None
