"""Key columns of any number of samples, drawn and not measured: what a freeze reads, without a picture being made.

Every sample has a picture and a caption. One in a hundred is a copy of another sample, one in a hundred is nearly
equal to one, and one in four is in a declared group of four. The signatures of pictures fall off with frequency as
those of photographs do, so that a search for near pairs has as much to compare as it has on real data.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mm_assets.drops.labels import LABEL_FIELDS
from mm_assets.features.schema import EMBEDDING_SIGNALS, SIGNALS
from mm_assets.identity.canonical import digest_bytes
from mm_assets.modalities.image.signature_format import CHROMA, LUMA
from mm_assets.store.manifest import Input, NamedDigest
from mm_assets.store.objects import Store
from mm_assets.store.tables import write_parquet

SOURCE, DROP = "bench", "keys"
NUM_LABELS, NUM_LANGUAGES = 100, 14
COPIES, GROUP_SIZE = 100, 4
#: Root-mean-square of the lowest frequency of a picture, in steps of a signature.
SPREAD = 400.0
SAMPLES = pa.schema(
    [*((name, pa.string()) for name in ("id", "source", "drop", "label", "language", "group")), *LABEL_FIELDS]
)
NOTHING = pa.schema([("id", pa.string())])

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyColumns:
    """Which samples are drawn: ``num_samples`` from number ``first`` on, dealt to ``num_shards`` shards in turn."""

    num_samples: int
    num_shards: int
    first: int = 0
    release: str = "keys"


def write_shards(store: Store, wanted: KeyColumns, folder: Path) -> list[Input]:
    """Stores the tables of every shard and returns the inputs that name them."""
    folder.mkdir(parents=True, exist_ok=True)
    empty = store.put_file(write_parquet(NOTHING.empty_table(), folder / "empty.parquet"))
    inputs: list[Input] = []
    for shard in range(wanted.num_shards):
        numbers = wanted.first + np.arange(shard, wanted.num_samples, wanted.num_shards, dtype=np.int64)
        tables = draw_tables(numbers, seed=wanted.first + shard)
        digests = {name: store.put_file(write_parquet(table, folder / "table")) for name, table in tables.items()}
        partition = {"release": wanted.release, "shard": f"{shard:04d}"}
        for asset, names in OUTPUTS.items():
            outputs = [NamedDigest(name=name.partition("/")[2], digest=digests.get(name, empty)) for name in names]
            inputs.append(Input(asset=asset, partition=partition, manifest=empty, outputs=outputs))
    return inputs


OUTPUTS = {
    "snapshot": ("snapshot/samples.parquet", "snapshot/dead_letters.parquet"),
    "features": ("features/signals.parquet", "features/tensors.arrow", "features/dead_letters.parquet"),
    "embeddings": ("embeddings/signals.parquet",),
}


def draw_tables(numbers: Ints, *, seed: int) -> dict[str, pa.Table]:
    """The tables of one shard: rows of ``snapshot``, signals of ``features`` and of ``embeddings``."""
    rng = np.random.default_rng(seed)
    numbers = np.sort(numbers)
    content = np.where(numbers % COPIES == 1, numbers - 1, numbers)
    near = numbers % COPIES == 2
    ids = [f"{SOURCE}/{DROP}/s{number:012d}" for number in numbers.tolist()]
    groups = [f"g{number // GROUP_SIZE}" if number // GROUP_SIZE % 4 == 0 else None for number in numbers.tolist()]
    count = len(numbers)
    origin = {
        "id": ids, "source": [SOURCE] * count, "drop": [DROP] * count, "group": groups,
        "label": [f"label {number:03d}" for number in rng.integers(0, NUM_LABELS, count).tolist()],
        "language": [f"l{number:02d}" for number in rng.integers(0, NUM_LANGUAGES, count).tolist()],
    }  # fmt: skip
    signals: dict[str, Any] = {
        "id": ids,
        "text_tokens": rng.integers(10, 90, count), "audio_frames": np.zeros(count, np.int32),
        "has_text": np.ones(count, np.bool_), "has_image": np.ones(count, np.bool_),
        "has_audio": np.zeros(count, np.bool_),
        "image_width": rng.integers(200, 800, count), "image_height": rng.integers(200, 800, count),
        "text_chars": rng.integers(10, 90, count),
        "image_pixels_digest": [digest_bytes(b"image %d" % number) for number in content.tolist()],
        "text_digest": [digest_bytes(b"text %d" % number) for number in content.tolist()],
        "image_signature": _binary(_image_signatures(np.where(near, numbers - 2, content), near)),
        "text_signature": _binary(_text_signatures(np.where(near, numbers - 2, content))),
        "language_id": origin["language"],
        **{name: np.round(rng.random(count), 6) for name in ("sharpness", "brightness", "contrast", "image_entropy")},
        **{name: np.zeros(count, np.bool_) for name in ("has_email", "has_phone", "has_url")},
        "num_redacted": np.zeros(count, np.int32),
    }  # fmt: skip
    embedded = {"id": ids, "coherence": np.round(rng.random(count), 6)}
    return {
        "snapshot/samples.parquet": _table(origin, SAMPLES),
        "features/signals.parquet": _table(signals, SIGNALS),
        "embeddings/signals.parquet": _table(embedded, EMBEDDING_SIGNALS),
    }


def _image_signatures(content: Ints, near: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Drawn by number, so that copies agree wherever they are; near ones differ in one step of one value."""
    spread = np.concatenate([_falloff(LUMA), *[0.4 * _falloff(CHROMA)] * 2])
    drawn = _normal(content, len(spread)) * spread
    values = np.clip(np.round(drawn), -2000, 2000).astype("<i2")
    values[near, 3] += 1
    return values.view(np.uint8).reshape(len(content), -1)


def _falloff(side: int) -> npt.NDArray[np.float64]:
    along = np.arange(side)
    return (SPREAD / np.power(1.0 + along[:, None] ** 2 + along**2, 0.75)).ravel().astype(np.float64)


def _text_signatures(content: Ints) -> npt.NDArray[np.uint8]:
    return (_words(content, 16) ^ np.uint64(0x5BF0_3635)).view(np.uint8).reshape(len(content), -1)


def _normal(numbers: Ints, width: int) -> npt.NDArray[np.float64]:
    """Nearly normal numbers, a row of them per number: sums of four evenly distributed ones."""
    words = _words(numbers, width)
    parts = [(words >> np.uint64(16 * part) & np.uint64(0xFFFF)).astype(np.float64) for part in range(4)]
    return (sum(parts) / 65536.0 - 2.0) * np.sqrt(3.0)


def _words(numbers: Ints, width: int) -> npt.NDArray[np.uint64]:
    mixed = numbers.astype(np.uint64)[:, None] * np.uint64(width) + np.arange(width, dtype=np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def _binary(rows: npt.NDArray[np.uint8]) -> pa.Array:
    fixed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(rows.shape[1]), len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows))]
    )
    return fixed.cast(pa.binary())


def _table(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    count = len(columns["id"])
    arrays = [
        pa.array(columns[field.name]).cast(field.type) if field.name in columns else pa.nulls(count, field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=pa.schema([field.with_nullable(True) for field in schema]))


def describe(store: Store) -> list[Input]:
    """The drop and the source that the release record repeats."""
    drop = {
        "schema": "mm.drop/1", "source": SOURCE, "drop": DROP, "captured_from": "2026-01-01T00:00:00+00:00",
        "captured_to": "2026-02-01T00:00:00+00:00", "format": "index", "objects": [], "annotation": {},
    }  # fmt: skip
    source = f"schema: mm.source/1\nsource: {SOURCE}\nlicence: CC0-1.0\nlabel_schema_version: '1'\n".encode()
    texts = {"drop": json.dumps(drop).encode(), "source": source}
    names = {"drop": {"source": SOURCE, "drop": DROP}, "source": {"source": SOURCE}}
    found: list[Input] = []
    for asset, data in texts.items():
        digest = store.put_bytes(data)
        name = f"{asset}.{'json' if asset == 'drop' else 'yaml'}"
        outputs = [NamedDigest(name=name, digest=digest)]
        found.append(Input(asset=asset, partition=names[asset], manifest=digest, outputs=outputs))
    assert digest_bytes(source) == found[1].manifest
    return found
