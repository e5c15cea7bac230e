"""Columns of the files this stage writes; other programs read them, so names and types only ever grow.

A shard with a sample that is not plain has a column ``parts`` more: null for plain samples, else the sample's parts in
reading order.
"""

import pyarrow as pa

from mm_assets.features.config import FeaturesConfig
from mm_assets.modalities import caption, origin
from mm_assets.modalities.parts import PART_TYPE, PARTS
from mm_assets.modalities.table import MODALITIES, NAMES, PACKED, aspect


def _columns() -> list[pa.Field]:
    """Lengths, presence, then each modality's own columns, then those about several."""
    rows = MODALITIES.values()
    return [
        *(pa.field(row.length_column, pa.int32()) for row in rows if row.length_column is not None),
        *(pa.field(f"has_{name}", pa.bool_()) for name in NAMES),
        *(pa.field(name, kind) for modality in PACKED for name, kind in aspect(modality, "signals").COLUMNS),
        *(pa.field(name, kind) for name, kind in (*caption.COLUMNS, *origin.COLUMNS)),
    ]


#: Key of schema metadata: what was redacted, comma-joined.
REDACTIONS = "params.redactions"

TENSORS = pa.schema(
    [pa.field("id", pa.string(), nullable=False), *((name, aspect(name, "column").ARROW_TYPE) for name in NAMES)]
)

SIGNALS = pa.schema([pa.field("id", pa.string(), nullable=False), *_columns()])

PARTS_FIELD = pa.field(PARTS, pa.list_(PART_TYPE))
#: Of signals; ``digest`` is equal for parts of equal content.
MEASURED_PARTS_FIELD = pa.field(PARTS, pa.list_(pa.struct([*PART_TYPE, ("digest", pa.string())])))

DEAD_LETTERS = pa.schema(
    [
        ("id", pa.string()),
        pa.field("object", pa.string(), nullable=False),
        ("member", pa.string()),
        ("modality", pa.string()),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        ("digest", pa.string()),
        ("size_bytes", pa.int64()),
    ]
)

EMBEDDINGS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        *((name, pa.list_(pa.float32())) for name in NAMES),
    ]
)

EMBEDDING_SIGNALS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        ("coherence", pa.float64()),
    ]
)


def tensors_schema(config: FeaturesConfig, *, has_parts: bool = False) -> pa.Schema:
    """``TENSORS`` with what a reader of the columns needs, such as their shapes, as schema metadata."""
    numbers = {
        name: value for modality in PACKED for name, value in aspect(modality, "tensor").metadata(config).items()
    }
    schema = TENSORS.append(PARTS_FIELD) if has_parts else TENSORS
    return schema.with_metadata({name: str(value) for name, value in numbers.items()})


def signals_schema(config: FeaturesConfig, *, has_parts: bool = False) -> pa.Schema:
    """``SIGNALS`` with ``params.<name>`` of the tensors and the redactions, if any, as schema metadata.

    A frozen release states them for all of its shards without opening a tensor. Versions of codecs are in the
    environment of the manifest instead: codecs of another version that decode to the same values change no byte here.
    """
    params = tensors_schema(config).metadata
    stated = {f"params.{name.decode()}": value.decode() for name, value in sorted(params.items())}
    if config.redactions:
        stated[REDACTIONS] = ",".join(sorted(config.redactions))
    schema = SIGNALS.append(MEASURED_PARTS_FIELD) if has_parts else SIGNALS
    return schema.with_metadata(stated)
