"""Columns of the tables this stage writes; other programs read them, so names and types only ever grow.

A sample that is not plain has its first part of a modality in the modality's columns, and all of them in
``<modality>_parts``. A shard of plain samples has no such columns, and so the bytes that it had before there were any.
"""

import pyarrow as pa

from mm_assets.drops.labels import LABEL_FIELDS
from mm_assets.modalities.table import MODALITIES, NAMES

SAMPLES_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "source", "drop", "key", "object")),
        *(
            field
            for modality in NAMES
            for field in (
                (f"has_{modality}", pa.bool_()),
                (f"{modality}_digest", pa.string()),
                (f"{modality}_offset", pa.int64()),
                (f"{modality}_size_bytes", pa.int64()),
                (f"{modality}_format", pa.string()),
                *(
                    ((f"{modality}_start_us", pa.int64()), (f"{modality}_end_us", pa.int64()))
                    if MODALITIES[modality].has_time_ranges
                    else ()
                ),
            )
        ),
        *((name, pa.string()) for name in ("label", "language", "group", "metadata")),
        *LABEL_FIELDS,
    ]
)
#: One part: the place at which it is read among all parts of the sample, and where its bytes are in ``samples.tar``.
PART_TYPE = pa.struct(
    [
        ("place", pa.int32()),
        ("digest", pa.string()),
        ("offset", pa.int64()),
        ("size_bytes", pa.int64()),
        ("format", pa.string()),
    ]
)
PARTS_SCHEMA = pa.schema([(f"{modality}_parts", pa.list_(PART_TYPE)) for modality in NAMES])
DEAD_LETTERS_SCHEMA = pa.schema(
    [
        *(
            (name, pa.string())
            for name in ("id", "object", "member", "modality", "stage", "reason", "detail", "digest")
        ),
        ("size_bytes", pa.int64()),
    ]
)
#: Key of the schema's metadata in ``dead_letters.parquet``: members of unknown extension, counted by extension.
UNKNOWN_KEY = b"unknown_members"


def samples_schema(*, has_parts: bool) -> pa.Schema:
    """Of ``samples.parquet`` of a shard; ``has_parts`` where one of its samples is not plain."""
    return pa.schema([*SAMPLES_SCHEMA, *(PARTS_SCHEMA if has_parts else ())])
