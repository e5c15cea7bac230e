"""Columns of the files this stage writes; other programs read them, so names and types only ever grow."""

from collections.abc import Mapping

import pyarrow as pa

from mm_assets.features.config import FeaturesConfig

MODALITIES = ("text", "image", "audio")

TENSORS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        ("text", pa.list_(pa.int32())),
        ("image", pa.binary()),
        ("audio", pa.binary()),
    ]
)

SIGNALS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        ("text_tokens", pa.int32()),
        ("audio_frames", pa.int32()),
        ("has_text", pa.bool_()),
        ("has_image", pa.bool_()),
        ("has_audio", pa.bool_()),
        ("image_width", pa.int32()),
        ("image_height", pa.int32()),
        ("sharpness", pa.float64()),
        ("brightness", pa.float64()),
        ("contrast", pa.float64()),
        ("image_phash", pa.string()),
        ("image_pixels_digest", pa.string()),
        ("audio_seconds", pa.float64()),
        ("sample_rate", pa.float64()),
        ("clipping_fraction", pa.float64()),
        ("snr_db", pa.float64()),
        ("silence_fraction", pa.float64()),
        ("loudness", pa.float64()),
        ("audio_decode_digest", pa.string()),
        ("text_chars", pa.int32()),
        ("text_bytes", pa.int32()),
        ("language_id", pa.string()),
        ("language_confidence", pa.float64()),
        ("has_email", pa.bool_()),
        ("has_phone", pa.bool_()),
        ("has_url", pa.bool_()),
        ("text_digest", pa.string()),
        ("text_minhash", pa.string()),
    ]
)

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
        ("text", pa.list_(pa.float32())),
        ("image", pa.list_(pa.float32())),
        ("audio", pa.list_(pa.float32())),
    ]
)

EMBEDDING_SIGNALS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        ("near_duplicate_key", pa.string()),
        ("coherence", pa.float64()),
    ]
)


def tensors_schema(config: FeaturesConfig) -> pa.Schema:
    """``TENSORS`` with the shapes a reader of the binary columns needs, as schema metadata.

    ``image`` is ``image_size`` x ``image_size`` x 3 uint8; ``audio`` is frames x ``num_mels`` float32, little-endian.
    """
    return TENSORS.with_metadata(
        {
            "image_size": str(config.image_size),
            "num_mels": str(config.num_mels),
            "sample_rate": str(config.sample_rate),
            "hop_ms": str(config.hop_ms),
            "vocab_size": "260",
        }
    )


def signals_schema(config: FeaturesConfig, codecs: Mapping[str, str]) -> pa.Schema:
    """``SIGNALS`` with what made them as schema metadata: ``codec.<name>`` versions, ``params.<name>`` of the tensors.

    A frozen release states them for all of its shards without opening a tensor.
    """
    params = {"image_size": config.image_size, "sample_rate": config.sample_rate, "num_mels": config.num_mels}
    return SIGNALS.with_metadata(
        {f"codec.{name}": version for name, version in sorted(codecs.items())}
        | {f"params.{name}": str(value) for name, value in sorted(params.items())}
    )
