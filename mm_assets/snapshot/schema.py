"""Columns of the tables this stage writes; other programs read them, so names and types only ever grow."""

import pyarrow as pa

from mm_assets.drops.labels import LABEL_FIELDS
from mm_assets.modalities.table import NAMES

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
            )
        ),
        *((name, pa.string()) for name in ("label", "language", "group", "metadata")),
        *LABEL_FIELDS,
    ]
)
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
