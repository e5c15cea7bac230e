"""The bytes of the bootstrap encoder, made without torch: a release is opened in a process that has none.

The file is safetensors (8 bytes header length, JSON header, raw tensors) without metadata. Its tensors are derived
from SHAKE-256 of their names, so they depend on no library's random generator: the same configuration has the same
digest for ever. ``encoder`` runs what is written here.
"""

import hashlib
import json
import math

import numpy as np
import numpy.typing as npt

from mm_assets.features.config import EncoderConfig

KIND = "bootstrap"
ENCODER_FILE = "encoder.safetensors"
#: Lengths of the descriptors that ``encoder`` computes, in its order of blocks.
IMAGE_BLOCKS = {"colour": 48, "gradients": 128, "frequencies": 63}
AUDIO_BLOCKS = {"mean": 40, "spread": 40, "movement": 120, "course": 80}
TEXT_BUCKETS = 4096
TEXT_NGRAMS = (2, 3, 4, 5)
MULTIPLIER_LIMIT = 1 << 31
DTYPES = {"int8": "I8", "int64": "I64"}


def bootstrap_encoder_bytes(config: EncoderConfig) -> bytes:
    """A safetensors file with one projection per modality and the multipliers of the text hash.

    Projections hold +1 and -1 only. Source: Achlioptas 2003, "Database-friendly random projections".
    """
    tensors = {
        "audio.projection": _signs("audio.projection", sum(AUDIO_BLOCKS.values()), config.dim),
        "image.projection": _signs("image.projection", sum(IMAGE_BLOCKS.values()), config.dim),
        "text.multipliers": _multipliers("text.multipliers", len(TEXT_NGRAMS), max(TEXT_NGRAMS)),
        "text.projection": _signs("text.projection", TEXT_BUCKETS, config.dim),
    }
    return safetensors_bytes(tensors)


def safetensors_bytes(tensors: dict[str, npt.NDArray[np.int8] | npt.NDArray[np.int64]]) -> bytes:
    """A safetensors file of integer tensors, largest element size first, then by name (as the library orders them)."""
    header: dict[str, object] = {}
    data = b""
    for name in sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)):
        tensor = tensors[name]
        raw = tensor.astype(tensor.dtype.newbyteorder("<")).tobytes()
        header[name] = {
            "dtype": DTYPES[tensor.dtype.name],
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded + data


def _signs(name: str, *shape: int) -> npt.NDArray[np.int8]:
    count = math.prod(shape)
    bits = np.unpackbits(np.frombuffer(_stream(name, -(-count // 8)), np.uint8), count=count)
    return (bits.astype(np.int8) * 2 - 1).reshape(shape)


def _multipliers(name: str, *shape: int) -> npt.NDArray[np.int64]:
    count = math.prod(shape)
    words = np.frombuffer(_stream(name, 4 * count), "<u4").astype(np.int64)
    return (words % MULTIPLIER_LIMIT | 1).reshape(shape)


def _stream(name: str, num_bytes: int) -> bytes:
    return hashlib.shake_256(f"mm_assets bootstrap encoder 1: {name}".encode()).digest(num_bytes)
