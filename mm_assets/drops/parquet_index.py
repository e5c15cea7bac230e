"""What the columns of a Parquet index mean: media as bytes or as ``{bytes, path}``, whole numbers, names of classes.

``datasets`` writes the names of classes into the file's schema (``huggingface``, features of type ``ClassLabel``); a
column of numbers that has them there is read as these names.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from mm_assets.drops.columns import FILE_COLUMNS, FILE_MODALITIES, Columns, Seen, modality_of_file, source_columns
from mm_assets.drops.fields import KNOWN_COLUMNS, NUMBERED_COLUMNS, expected_type, misspelt, repeated_names
from mm_assets.drops.limits import MAX_METADATA_DEPTH
from mm_assets.drops.parquet_chunks import row_groups
from mm_assets.drops.parquet_rows import (
    MAX_BATCH_ROWS,
    crowded_columns,
    is_text,
    nesting,
    null_rows,
    open_parquet,
    read_values,
)
from mm_assets.drops.parts import CONTENT, MATCHED_IMAGES, MATCHED_TEXTS
from mm_assets.modalities.reasons import Refusal
from mm_assets.modalities.table import MODALITIES

HUGGING_FACE = b"huggingface"
MEDIA_TYPES = "a string, bytes, a struct of bytes and path, a list of one of these, or null"
#: Ceiling on the media of one row in a column of lists.
MAX_LIST_BYTES = 256 << 20


def see_parquet(path: Path, where: str) -> Seen:
    """What columns a Parquet index has."""
    with open_parquet(path, where) as file:
        schema = file.schema_arrow
        media = [name for name in FILE_MODALITIES if name in schema.names and holds_bytes(schema.field(name).type)]
        is_numbered = bool(media) or HUGGING_FACE in (schema.metadata or {})
        seen = Seen(names=set(schema.names), is_self_contained=is_numbered)
        seen.parts = _parts_column(schema)
        for column in FILE_COLUMNS:
            if schema.names.count(column) == 1 and is_text(item_type(schema.field(column).type)):
                values = _distinct_modalities(file, column)
                if values:
                    seen.files[column] = values
        return seen


def find_parquet_problems(path: Path, where: str, columns: Columns) -> Iterator[tuple[int, str, str]]:
    """Row, column and what is wrong with it, of everything that makes the index unusable."""
    with open_parquet(path, where) as file:
        schema = file.schema_arrow
        names = set(schema.names)
        repeated = repeated_names(schema.names)
        if repeated:
            yield from ((1, name, "is given twice; one column of a name is expected") for name in repeated)
            return
        sources = source_columns(columns, KNOWN_COLUMNS)
        for name in sorted(names):
            meant = misspelt(name, KNOWN_COLUMNS)
            if meant and meant not in names and name not in columns.values():
                yield 1, name, f"looks like a mistake for {meant}"
            if nesting(schema.field(name).type) > MAX_METADATA_DEPTH:
                yield 1, name, f"is nested deeper than {MAX_METADATA_DEPTH} levels"
        for name, source in sources.items():
            if source in names and not _fits(name, schema.field(source).type):
                expected = MEDIA_TYPES if name in FILE_MODALITIES else expected_type(name)
                yield 1, source, f"is a {schema.field(source).type}; {expected} is expected"
        crowded = list(crowded_columns(path, file.schema))
        yield from ((row + 1, name, detail) for row, name, detail in crowded)
        if "id" in sources and sources["id"] not in names:
            yield 1, "id", "is missing"
        elif "id" in sources and not crowded:
            yield from ((row + 1, sources["id"], "is missing") for row in null_rows(file, sources["id"]))


def read_group(
    path: Path, where: str, group: int, columns: Columns, *, max_row_bytes: int, only: Sequence[str] | None
) -> Iterator[dict[str, Any] | Refusal]:
    """The rows of one row group under the file's own names; media as bytes or as the name of a file.

    Args:
        path: The index.
        where: What errors call it.
        group: Number of the row group.
        columns: The names its columns have.
        max_row_bytes: Ceiling on a row, apart from the media in it.
        only: Columns of samples that are needed; None: all.
    """
    with open_parquet(path, where) as file:
        schema = file.schema_arrow
        sources = source_columns(columns, FILE_MODALITIES)
        media = {
            source: MAX_LIST_BYTES if is_list(schema.field(source).type) else MODALITIES[name].max_bytes
            for name, source in sources.items()
            if source in schema.names and holds_bytes(schema.field(source).type)
        }
        if columns.get(CONTENT) == CONTENT:
            media[CONTENT] = MAX_LIST_BYTES
        size = row_groups(path)[group]
        wanted = None if only is None else _projection(file, source_columns(columns, only), set(media))
        if wanted == []:
            yield from ({} for _ in range(size.num_rows))
            return
        classes = class_names(schema)
        for values in read_values(file, group, size, max_bytes=max_row_bytes + sum(media.values()), columns=wanted):
            yield values if isinstance(values, Refusal) else _plain(values, media, classes)


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether its values are bytes, structs of bytes and the name of a file, or lists of either."""
    kind = item_type(kind)
    if pa.types.is_struct(kind):
        names = [kind.field(number).name for number in range(kind.num_fields)]
        return "bytes" in names and _is_binary(kind.field("bytes").type)
    return _is_binary(kind)


def is_list(kind: pa.DataType) -> bool:
    """Whether its values are lists of any length."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def item_type(kind: pa.DataType) -> pa.DataType:
    """Of lists the type of what is in them, else the type itself."""
    return kind.value_type if is_list(kind) else kind


def _parts_column(schema: pa.Schema) -> str | None:
    """The column that holds the parts of samples in reading order, if any."""
    lists = {
        field.name: field.type.value_type
        for field in schema
        if is_list(field.type) and schema.names.count(field.name) == 1
    }
    fields = {
        name: {kind.field(number).name for number in range(kind.num_fields)}
        for name, kind in lists.items()
        if pa.types.is_struct(kind)
    }
    if fields.get(CONTENT, set()) & set(MODALITIES):
        return CONTENT
    is_matched = MATCHED_TEXTS in lists and is_text(lists[MATCHED_TEXTS])
    return MATCHED_TEXTS if is_matched and "image_name" in fields.get(MATCHED_IMAGES, set()) else None


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Per column of numbers the names of its classes, as far as the file says them."""
    try:
        document = json.loads((schema.metadata or {}).get(HUGGING_FACE, b"{}"))
        features = cast("dict[str, Any]", document["info"]["features"])
        return {
            name: [str(label) for label in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and name in schema.names
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        # Metadata that is not what `datasets` writes says nothing; the numbers stay numbers.
        return {}


def describe_classes(path: Path, where: str) -> list[str]:
    """A sentence for every column whose numbers are read as names of classes."""
    if path.suffix != ".parquet":
        return []
    with open_parquet(path, where) as file:
        return [
            f"the numbers of column {name} are read as the names of its classes, {labels[0]} and {len(labels) - 1} more"
            for name, labels in sorted(class_names(file.schema_arrow).items())
            if labels
        ]


def _plain(values: dict[str, Any], media: Mapping[str, int], classes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    for name in media:
        if name != CONTENT:
            values[name] = _medium(values.get(name))
        elif isinstance(values.get(name), list):
            values[name] = [
                {key: _medium(item) for key, item in part.items()} if isinstance(part, dict) else part
                for part in values[name]
            ]
    for name, labels in classes.items():
        number = values.get(name)
        if isinstance(number, int):
            values[name] = labels[number] if 0 <= number < len(labels) else None if number == -1 else number
    return values


def _medium(value: Any) -> Any:
    """The bytes or the name of a file in a cell, or those of a list."""
    if isinstance(value, list):
        return [_medium(item) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    cell = cast("dict[str, Any]", value)
    return cell.get("path") if cell.get("bytes") is None else cell["bytes"]


def _projection(file: pq.ParquetFile, sources: Mapping[str, str], media: set[str]) -> list[str]:
    """The leaves to read: of media that the file holds only the names of files, and the texts beside them."""
    schema = file.schema_arrow
    wanted = set[str]()
    leaves = [file.schema.column(number) for number in range(len(file.schema))]
    for source in sources.values():
        if source not in schema.names:
            continue
        if source not in media:
            wanted.add(source)
            wanted |= {MATCHED_IMAGES} if source == MATCHED_TEXTS and MATCHED_IMAGES in schema.names else set()
            continue
        inside = [leaf for leaf in leaves if leaf.path.startswith(f"{source}.")]
        wanted |= {leaf.path for leaf in inside if leaf.logical_type.type == "STRING"}
    return sorted(wanted)


def _fits(name: str, kind: pa.DataType) -> bool:
    if is_text(item_type(kind)) and (name in MODALITIES or not is_list(kind)):
        return True
    if name in NUMBERED_COLUMNS:
        return pa.types.is_integer(kind)
    return name in FILE_MODALITIES and holds_bytes(kind)


def _is_binary(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_binary(kind.value_type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _distinct_modalities(file: pq.ParquetFile, column: str) -> set[str]:
    found: set[str] = set()
    for batch in file.iter_batches(batch_size=MAX_BATCH_ROWS, columns=[column], use_threads=False):
        cells = batch.column(0)
        cells = cells.flatten() if is_list(cells.type) else cells
        values = cells.cast(pa.large_binary()).unique().to_pylist()
        names = (None if value is None else value.decode("utf-8", "replace") for value in values)
        found.update(name for name in map(modality_of_file, names) if name is not None)
    return found
