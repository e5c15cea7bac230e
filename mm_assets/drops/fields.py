"""Columns of a sample: which names are known, of which type, and which names are mistakes for them."""

import difflib
from collections.abc import Collection, Mapping
from typing import cast

from mm_assets.drops.limits import SnapshotConfig
from mm_assets.drops.samples import LABEL_COLUMNS, Blob, Rejection, Sample, metadata_json
from mm_assets.errors import IdentityError
from mm_assets.modalities.table import NAMES

#: Columns of an index. All but ``id`` may be missing, and all are strings or null.
KNOWN_COLUMNS = ("id", *NAMES, *LABEL_COLUMNS)
SIMILARITY = 0.8


def misspelt(name: str, known: Collection[str]) -> str | None:
    """The known column that ``name`` looks like a mistake for, or None. ``known`` names cannot be mistakes."""
    if name in known:
        return None
    folded = name.strip().lower()
    if folded in known:
        return folded
    close = difflib.get_close_matches(folded, [column for column in known if len(column) > 2], n=1, cutoff=SIMILARITY)
    return close[0] if close else None


def wrongly_typed(values: Mapping[str, object], known: Collection[str]) -> tuple[str, str] | None:
    """The first known column that is neither a string nor null, and the name of the type it has."""
    for name in known:
        value = values.get(name)
        if value is not None and not isinstance(value, str):
            return name, type(value).__name__
    return None


def finish_sample(
    key: str,
    object_key: str,
    blobs: Mapping[str, Blob],
    columns: Mapping[str, object],
    config: SnapshotConfig,
    *,
    line: int | None = None,
) -> Sample | Rejection:
    """The sample made of ``blobs`` and ``columns``, or why its key or its metadata are refused."""
    trouble = _bad_key(key, config)
    further = {name: value for name, value in columns.items() if name not in LABEL_COLUMNS}
    metadata = "{}"
    if trouble is None:
        trouble = _bad_label(columns)
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
    return Sample(
        key=key,
        object=object_key,
        blobs=blobs,
        metadata=metadata,
        **{name: cast("str | None", columns.get(name)) for name in LABEL_COLUMNS},
    )


def _bad_label(columns: Mapping[str, object]) -> tuple[str, str] | None:
    for name in LABEL_COLUMNS:
        try:
            str(columns.get(name)).encode("utf-8")
        except UnicodeEncodeError as error:
            return "bad_metadata", f"{name} is not Unicode text: {error.reason}"
    return None


def printable(key: str) -> str:
    """``key`` as it may stand in a report or a table, whatever was in the data."""
    return key.encode("utf-8", "backslashreplace").decode("utf-8")


def _bad_key(key: str, config: SnapshotConfig) -> tuple[str, str] | None:
    try:
        size_bytes = len(key.encode("utf-8"))
    except UnicodeEncodeError:
        return "bad_id", f"id {key!r} is not Unicode text"
    if not key or not all(character.isprintable() for character in key):
        return "bad_id", f"id {key!r} is empty or has characters that cannot be printed"
    if size_bytes > config.max_key_bytes:
        return "bad_id", f"id has {size_bytes} bytes; {config.max_key_bytes} are allowed"
    return None
