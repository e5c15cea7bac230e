"""Whether the weights of an encoder are floating-point numbers and finite, read once from beginning to end.

What a file's header says of its tensors was checked by ``safetensors`` before.
"""

import json
from pathlib import Path
from typing import IO

import numpy as np

from mm_assets.errors import UsageError

CHUNK_BYTES = 16 << 20
#: Types of numbers with the bits of their exponent, all of which are set where a number is not finite.
EXPONENTS = {
    "F64": np.uint64(0x7FF0 << 48), "F32": np.uint32(0x7F800000), "F16": np.uint16(0x7C00), "BF16": np.uint16(0x7F80),
}  # fmt: skip
#: Positions and counters, which models keep beside their weights.
INDICES = ("I64", "I32")


def require_finite(path: Path) -> None:
    """Refuses weights that are packed, or not finite.

    Raises:
        UsageError: the first such tensor.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        tensors = json.loads(file.read(size))
        start = file.tell()
        for name, tensor in sorted(tensors.items()):
            if name == "__metadata__" or tensor["dtype"] in INDICES:
                continue
            if tensor["dtype"] not in EXPONENTS:
                raise UsageError(
                    f"encoder: weights {name} are of type {tensor['dtype']}: expected one of {', '.join(EXPONENTS)}. "
                    "Save the model as floating-point numbers."
                )
            first, end = tensor["data_offsets"]
            file.seek(start + first)
            if not _is_finite(file, end - first, EXPONENTS[tensor["dtype"]]):
                raise UsageError(
                    f"encoder: weights {name} hold NaN or infinity: expected finite numbers. Take an undamaged model."
                )


def _is_finite(file: IO[bytes], num_bytes: int, exponent: np.unsignedinteger) -> bool:
    for place in range(0, num_bytes, CHUNK_BYTES):
        numbers = np.frombuffer(file.read(min(CHUNK_BYTES, num_bytes - place)), exponent.dtype.newbyteorder("<"))
        if ((numbers & exponent) == exponent).any():
            return False
    return True
