"""The ledger: which samples every lane really consumed at every step, written from the batches themselves.

It is compared with the plan after training: ``plan == ledger`` is what makes a model traceable to its samples.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from mm_assets.identity.canonical import digest_json

LEDGER = pa.schema(
    [
        pa.field("step", pa.int32(), nullable=False),
        pa.field("lane", pa.int32(), nullable=False),
        pa.field("num_samples", pa.int32(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("ids", pa.list_(pa.string()), nullable=False),
    ]
)


def ledger_entry(step: int, lane: int, ids: Sequence[str]) -> dict[str, Any]:
    """One row: the ids in the order they were consumed, and the digest of that list."""
    return {"step": step, "lane": lane, "num_samples": len(ids), "digest": digest_json(list(ids)), "ids": list(ids)}
